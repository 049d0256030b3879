//! Function ARNs and regions, from the many ways AWS writes them.

/// A function's ARN without qualifier and the qualifier, from a name, a partial ARN or a full ARN. What the text does
/// not say comes from `account` and `region`. `None` for what cannot be a function.
pub(crate) fn function_arn(text: &str, account: &str, region: &str) -> Option<(String, Option<String>)> {
    let text = text.trim();
    let (head, tail) = match text.rfind("function:") {
        Some(at) => (&text[..at], &text[at + "function:".len()..]),
        None => ("", text),
    };
    let (name, qualifier) = match tail.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (tail, None),
    };
    // A region of an ARN without `function:` (a layer, a role) is no name.
    if name.is_empty() || name == "arn" || name.contains('/') {
        return None;
    }
    let mut arn_account = account;
    let mut arn_region = region;
    let mut partition = None;
    let parts: Vec<&str> = head.trim_end_matches(':').split(':').collect();
    if let ["arn", p, "lambda", r, a] = parts[..] {
        (partition, arn_region, arn_account) = (Some(p), r, a);
    } else if let [a] = parts[..]
        && !a.is_empty()
    {
        arn_account = a;
    }
    let partition = partition.unwrap_or_else(|| partition_of(arn_region));
    let qualifier = qualifier.filter(|q| !q.is_empty() && *q != "$LATEST").map(str::to_owned);
    Some((format!("arn:{partition}:lambda:{arn_region}:{arn_account}:function:{name}"), qualifier))
}

/// `aws-cn`, `aws-us-gov` or `aws`.
pub(crate) fn partition_of(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

/// Account of an ARN.
pub(crate) fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|a| !a.is_empty())
}

/// Region of an ARN.
pub(crate) fn region_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(3).filter(|r| !r.is_empty())
}

/// The function's name: the last element of an ARN without qualifier.
pub(crate) fn name_of(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}

/// The region of an availability zone: `us-east-1a`, and local zones such as `us-west-2-lax-1a`.
pub(crate) fn region_of_zone(zone: &str) -> Option<&str> {
    let mut end = 0;
    for part in zone.split('-') {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            return (end > 0).then(|| &zone[..end + digits]);
        }
        end += part.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_by_any_name() {
        let full = "arn:aws:lambda:eu-west-1:111122223333:function:orders";
        for (text, arn, qualifier) in [
            ("orders", Some(full), None),
            ("orders:3", Some(full), Some("3")),
            ("111122223333:function:orders", Some(full), None),
            (full, Some(full), None),
            ("arn:aws:lambda:eu-west-1:111122223333:function:orders:$LATEST", Some(full), None),
            ("arn:aws:lambda:eu-west-1:111122223333:function:orders:live", Some(full), Some("live")),
            ("arn:aws-cn:lambda:cn-north-1:444455556666:function:x", Some("arn:aws-cn:lambda:cn-north-1:444455556666:function:x"), None),
            ("arn:aws:iam::111122223333:role/x", None, None),
            ("", None, None),
        ] {
            let got = function_arn(text, "111122223333", "eu-west-1");
            assert_eq!(got, arn.map(|a| (a.to_owned(), qualifier.map(str::to_owned))), "{text}");
        }
    }

    #[test]
    fn regions_of_zones() {
        for (zone, region) in [
            ("us-east-1a", Some("us-east-1")),
            ("us-gov-west-1b", Some("us-gov-west-1")),
            ("us-west-2-lax-1a", Some("us-west-2")),
            ("nowhere", None),
            ("", None),
            ("1", None),
        ] {
            assert_eq!(region_of_zone(zone), region, "{zone}");
        }
    }
}
