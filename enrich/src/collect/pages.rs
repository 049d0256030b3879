//! Lists of several pages, whole or not at all.

use std::error::Error;

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_organizations::types::{AccountState, AccountStatus};
use serde_json::Value;

use super::shape;

/// More pages than any list has; a service that gives new tokens for ever must not hold us for ever.
const PAGES: usize = 100_000;

/// Whether a page follows; an error when the same token came again or there are too many.
fn next(before: &mut Option<String>, token: Option<&str>, pages: &mut usize) -> Result<bool, String> {
    let token = token.filter(|t| !t.is_empty()).map(str::to_owned);
    *pages += 1;
    if token.is_none() {
        return Ok(false);
    }
    if token == *before || *pages >= PAGES {
        return Err(format!("list does not end: page {pages} points to itself or on and on"));
    }
    *before = token;
    Ok(true)
}

fn told<E: ProvideErrorMetadata + Error + 'static>(error: E) -> String {
    super::reason(&error)
}

/// Every interface of the region, those of managed resources too.
pub(super) async fn interfaces(client: &aws_sdk_ec2::Client) -> Result<Vec<Value>, String> {
    let (mut found, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        // Unpaginated and unfiltered describe calls have the smaller bucket: always ask for pages.
        let call = client.describe_network_interfaces().max_results(1000).include_managed_resources(true);
        let page = call.set_next_token(token.clone()).send().await.map_err(told)?;
        found.extend(page.network_interfaces().iter().map(shape::interface));
        if !next(&mut token, page.next_token(), &mut pages)? {
            return Ok(found);
        }
    }
}

/// Every function of the region and every published version.
pub(super) async fn functions(client: &aws_sdk_lambda::Client) -> Result<Vec<Value>, String> {
    let (mut found, mut marker, mut pages) = (Vec::new(), None, 0);
    loop {
        let call = client.list_functions().function_version(aws_sdk_lambda::types::FunctionVersion::All);
        let page = call.set_marker(marker.clone()).send().await.map_err(told)?;
        found.extend(page.functions().iter().map(shape::function));
        if !next(&mut marker, page.next_marker(), &mut pages)? {
            return Ok(found);
        }
    }
}

/// Every active account of the organisation.
pub(super) async fn accounts(client: &aws_sdk_organizations::Client) -> Result<Vec<String>, String> {
    let (mut found, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = client.list_accounts().set_next_token(token.clone()).send().await.map_err(told)?;
        for account in page.accounts() {
            // `State` replaces `Status`; either may be missing.
            #[allow(deprecated)]
            let active = match (account.state(), account.status()) {
                (Some(state), _) => *state == AccountState::Active,
                (None, Some(status)) => *status == AccountStatus::Active,
                (None, None) => true,
            };
            found.extend(account.id().filter(|_| active).map(str::to_owned));
        }
        if !next(&mut token, page.next_token(), &mut pages)? {
            return Ok(found);
        }
    }
}
