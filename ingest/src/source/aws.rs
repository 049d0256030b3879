//! The connection to AWS or a compatible store: region, endpoint and the usual chain of credentials.

use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::ProvideCredentials as _;
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_sdk_s3::error::DisplayErrorContext;

/// Which AWS, or what stands in for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsOptions {
    /// The region; default: environment, profile, instance metadata, else `us-east-1`.
    pub region: Option<String>,
    /// Another store or service than AWS's own, e.g. `http://127.0.0.1:9000`.
    pub endpoint_url: Option<String>,
}

/// No credentials, or none that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile in AWS_PROFILE, or run with a role \
     (looked in environment, profile, web identity, container and instance metadata: {reason})"
)]
pub struct NoCredentials {
    /// What the last place in the chain said.
    pub reason: String,
}

/// Instance metadata answers at once or is not there; its client's own patience is many seconds.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Finds region and credentials, once: a missing chain is said within seconds and not at the first request.
///
/// # Errors
/// [`NoCredentials`].
pub async fn config(options: &AwsOptions) -> Result<SdkConfig, NoCredentials> {
    let metadata = imds::Client::builder()
        .connect_timeout(METADATA_TIMEOUT)
        .read_timeout(METADATA_TIMEOUT)
        .operation_timeout(2 * METADATA_TIMEOUT)
        .max_attempts(1)
        .build();
    let mut region = RegionProviderChain::first_try(options.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    if options.endpoint_url.is_none() {
        region = region.or_else(ImdsRegionProvider::builder().imds_client(metadata.clone()).build());
    }
    let region = region.or_else(Region::from_static("us-east-1")).region().await;

    let provider = ProviderConfig::without_region().with_region(region.clone());
    let chain = DefaultCredentialsChain::builder().configure(provider).imds_client(metadata).region(region.clone()).build().await;
    let credentials = SharedCredentialsProvider::new(chain);
    if let Err(error) = credentials.provide_credentials().await {
        return Err(NoCredentials { reason: DisplayErrorContext(&error).to_string() });
    }

    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .credentials_provider(credentials)
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).read_timeout(Duration::from_secs(60)).build());
    if let Some(url) = &options.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    Ok(loader.load().await)
}
