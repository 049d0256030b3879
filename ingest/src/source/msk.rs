//! Amazon MSK with IAM: tokens for SASL/OAUTHBEARER.
//!
//! A token is the URL of `kafka-cluster:Connect`, signed like any request to AWS (Signature Version 4 in the query), then
//! encoded. It is signed with what the usual chain of credentials says at that moment, so roles that are renewed go on
//! working. librdkafka asks for a new one before the old one ends.
//!
//! Signed here and not by `aws-msk-iam-sasl-signer`: that crate looks for credentials in a chain of its own, and turns on
//! features that make every AWS crate of the build compile anew. What it does is the few lines of [`sign`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_sdk_s3::config::{Credentials, ProvideCredentials as _};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign as sign_request};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::runtime::Handle;

use super::aws::{self, AwsOptions};
use super::percent_encoded;

/// How long a token is good; MSK takes no longer ones.
const LIFETIME: Duration = Duration::from_secs(900);

/// Makes tokens.
#[derive(Clone, Debug)]
pub struct MskIam {
    region: String,
    config: SdkConfig,
    runtime: Handle,
}

/// A token and its end.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What the broker is told.
    pub text: String,
    /// When it ends, milliseconds since 1970.
    pub ends_ms: i64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("ends_ms", &self.ends_ms).finish_non_exhaustive()
    }
}

impl MskIam {
    /// Finds credentials, and the region: that of the brokers' names, else the one of the configuration.
    ///
    /// # Errors
    /// In words, without credentials.
    pub fn connect(brokers: &[String], region: Option<&str>, runtime: Handle) -> Result<Self, String> {
        let region = brokers.iter().find_map(|broker| region_of(broker)).map(str::to_owned).or_else(|| region.map(str::to_owned));
        // The endpoint of a store that stands in for S3 is not MSK's.
        let options = AwsOptions { region: region.clone(), endpoint_url: None };
        let config = runtime.block_on(aws::config(&options)).map_err(|error| error.to_string())?;
        let region = region.or_else(|| config.region().map(ToString::to_string)).unwrap_or_default();
        Ok(Self { region, config, runtime })
    }

    /// A token of now. Waits for credentials; not to be called on the runtime's own threads.
    ///
    /// # Errors
    /// In words, when credentials can no longer be loaded.
    pub fn token(&self) -> Result<Token, String> {
        let provider = self.config.credentials_provider().ok_or("no AWS credentials")?;
        let credentials = self
            .runtime
            .block_on(provider.provide_credentials())
            .map_err(|error| format!("AWS credentials can no longer be loaded: {}", DisplayErrorContext(&error)))?;
        sign(credentials, &self.region, SystemTime::now())
    }
}

/// The region in a broker's name: `b-1.demo.abc123.c2.kafka.eu-west-1.amazonaws.com:9098`.
fn region_of(broker: &str) -> Option<&str> {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
    let name = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let (rest, region) = name.rsplit_once('.')?;
    (rest.ends_with(".kafka") || rest.ends_with(".kafka-serverless")).then_some(region)
}

fn sign(credentials: Credentials, region: &str, now: SystemTime) -> Result<Token, String> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFETIME);
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kafka-cluster")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| format!("the token cannot be signed: {error}"))?
        .into();
    let mut url = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let signed = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(&[]))
        .and_then(|request| sign_request(request, &parameters))
        .map_err(|error| format!("the token cannot be signed: {error}"))?;
    let (instructions, _) = signed.into_parts();
    for (name, value) in instructions.params() {
        url.push_str(&format!("&{name}={}", percent_encoded(value, b"")));
    }
    // Not signed: for whoever reads the broker's log.
    url.push_str(concat!("&User-Agent=flowtrail%2F", env!("CARGO_PKG_VERSION")));
    let ends = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() + LIFETIME.as_secs();
    Ok(Token { text: URL_SAFE_NO_PAD.encode(url), ends_ms: i64::try_from(ends).unwrap_or(i64::MAX / 1000) * 1000 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn url(token: &Token) -> String {
        String::from_utf8(URL_SAFE_NO_PAD.decode(&token.text).unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_a_signed_url_that_ends() {
        let at = UNIX_EPOCH + Duration::from_secs(1_767_571_200);
        let credentials = |secret: &str| Credentials::new("AKIDEXAMPLE", secret, Some("se/ss+ion=".to_owned()), None, "test");
        let token = sign(credentials("secret"), "eu-west-1", at).unwrap();
        assert_eq!(token.ends_ms, (1_767_571_200 + 900) * 1000);
        let url = url(&token);
        assert!(url.starts_with("https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&"), "{url}");
        for part in [
            "&X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "&X-Amz-Credential=AKIDEXAMPLE%2F20260105%2Feu-west-1%2Fkafka-cluster%2Faws4_request",
            "&X-Amz-Date=20260105T000000Z",
            "&X-Amz-Expires=900",
            "&X-Amz-SignedHeaders=host",
            "&X-Amz-Security-Token=se%2Fss%2Bion%3D",
            "&User-Agent=flowtrail%2F",
        ] {
            assert!(url.contains(part), "{part} is not in {url}");
        }
        let signature = |url: &str| url.split("X-Amz-Signature=").nth(1).unwrap()[..64].to_owned();
        assert!(signature(&url).bytes().all(|b| b.is_ascii_hexdigit()));
        let other = sign(credentials("another"), "eu-west-1", at).unwrap();
        assert_ne!(signature(&url), signature(&self::url(&other)), "the secret is in the signature");
        assert_eq!(token, sign(credentials("secret"), "eu-west-1", at).unwrap());
        assert!(!format!("{token:?}").contains(&token.text));
    }

    #[test]
    fn brokers_names_tell_the_region() {
        assert_eq!(region_of("b-1.demo.abc123.c2.kafka.eu-west-1.amazonaws.com:9098"), Some("eu-west-1"));
        assert_eq!(region_of("boot-x.c1.kafka-serverless.us-east-2.amazonaws.com:9098"), Some("us-east-2"));
        assert_eq!(region_of("b-1.demo.abc123.c2.kafka.cn-north-1.amazonaws.com.cn:9098"), Some("cn-north-1"));
        for none in ["127.0.0.1:9092", "kafka.example.com:9098", "kafka.eu-west-1.amazonaws.com", "amazonaws.com:1"] {
            assert_eq!(region_of(none), None, "{none}");
        }
    }
}
