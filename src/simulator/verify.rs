//! Is this request signed by somebody we know, for now, and for what actually arrived?
//!
//! Both checks recompute the signature from the bytes received: the header values, path and query
//! that the signature names are looked up in the request, never taken from what a client says that
//! it signed.

use chrono::{DateTime, Utc};

use crate::auth::{Credentials, Secret, Timestamp, cos, tc3};

use super::wire::{Received, percent_decode, query_pairs};

/// API 3.0 accepts timestamps within five minutes (page "Common Params").
const API_SKEW_SECONDS: i64 = 300;

/// COS accepts windows that begin within fifteen minutes (product page 436/7730).
const COS_SKEW_SECONDS: i64 = 900;

/// What a check needs to know of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate<'a> {
    /// Every pair of keys that is good.
    pub(super) accepted: &'a [Credentials],
    /// The server's time.
    pub(super) now: DateTime<Utc>,
    /// Whether session tokens count as expired.
    pub(super) has_expired_tokens: bool,
}

impl Gate<'_> {
    fn credentials(&self, secret_id: &str) -> Option<&Credentials> {
        self.accepted
            .iter()
            .find(|known| known.secret_id == secret_id)
    }

    fn check_token(&self, credentials: &Credentials, received: Option<&str>) -> Token {
        let expected = credentials.token.as_ref().map(Secret::expose);
        let is_expired = credentials
            .expires_at
            .is_some_and(|expires_at| expires_at <= self.now);
        if is_expired || self.has_expired_tokens {
            Token::Expired
        } else if expected == received.filter(|token| !token.is_empty()) {
            Token::Right
        } else {
            Token::Wrong
        }
    }
}

/// What a session token is worth; no token is right where none is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Right,
    Wrong,
    Expired,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The HTTP status; the API always answers 200.
    pub(super) status: u16,
    /// The code.
    pub(super) code: &'static str,
    /// The message in English.
    pub(super) message: String,
    /// Elements that COS adds to its XML.
    pub(super) details: Vec<(&'static str, String)>,
}

fn refuse(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal {
        status,
        code,
        message: message.into(),
        details: Vec::new(),
    }
}

/// The SecretId that a request names as its signer; empty ones count as none.
pub(super) fn signer(request: &Received) -> Option<String> {
    let header = request.header("authorization").unwrap_or_default();
    let of_api = ApiClaim::parse(header).map(|claim| claim.secret_id.to_owned());
    let of_cos = || {
        let parameters = query_pairs(&request.query)?;
        Some(CosClaim::find(request, &parameters)?.secret_id)
    };
    of_api.or_else(of_cos).filter(|id| !id.is_empty())
}

/// Checks a request to the API of `service`.
pub(super) fn api(gate: &Gate<'_>, request: &Received, service: &str) -> Result<(), Refusal> {
    let header = |name: &str| request.header(name).unwrap_or_default();
    let malformed = |why: &str| refuse(200, "AuthFailure.InvalidAuthorization", why.to_owned());
    let claim = ApiClaim::parse(header("authorization")).ok_or_else(|| {
        malformed("The Authorization header does not conform to the Tencent Cloud standard.")
    })?;
    let credentials = gate.credentials(claim.secret_id).ok_or_else(|| {
        refuse(
            200,
            "AuthFailure.SecretIdNotFound",
            "The SecretId is not found, please ensure that your SecretId is correct.",
        )
    })?;
    let timestamp: i64 = header("x-tc-timestamp").parse().map_err(|_| {
        refuse(
            200,
            "InvalidParameter",
            "The value of the header X-TC-Timestamp is not an integer.",
        )
    })?;
    let server = gate.now.timestamp();
    if server.abs_diff(timestamp) > API_SKEW_SECONDS.unsigned_abs() {
        return Err(refuse(
            200,
            "AuthFailure.SignatureExpire",
            format!(
                "The provided credentials expired: the timestamp {timestamp} differs from the \
                 server time {server} by more than five minutes."
            ),
        ));
    }
    let mismatch = |why: &str| {
        refuse(
            200,
            "AuthFailure.SignatureFailure",
            format!("The provided credentials could not be validated. {why}"),
        )
    };
    let scope = tc3::Scope::new(claim.service, Timestamp(timestamp));
    if claim.service != service {
        return Err(mismatch(
            "The service in the scope is not that of the host.",
        ));
    }
    if scope.to_string() != claim.scope {
        return Err(mismatch(
            "The date in the scope is not that of X-TC-Timestamp in UTC.",
        ));
    }
    let names: Vec<&str> = claim.signed_headers.split(';').collect();
    if !(names.contains(&"content-type") && names.contains(&"host")) {
        return Err(mismatch(
            "The headers content-type and host must be signed.",
        ));
    }
    let headers = received_headers(request, &names)
        .ok_or_else(|| mismatch("A signed header was not received."))?;
    let is_unsigned = header("x-tc-content-sha256") == "UNSIGNED-PAYLOAD";
    let canonical = tc3::CanonicalRequest::new(&tc3::Request {
        method: &request.method,
        path: &request.path,
        query: &request.query,
        headers: &headers,
        payload: if is_unsigned {
            b"UNSIGNED-PAYLOAD"
        } else {
            &request.body
        },
    });
    let expected =
        tc3::StringToSign::new(&canonical, &scope, Timestamp(timestamp)).sign(credentials, &scope);
    // The order of the list is part of what was signed, and `CanonicalRequest` sorts.
    if canonical.signed_headers() != claim.signed_headers || expected != claim.signature {
        return Err(mismatch("Please check if your signature is correct."));
    }
    if gate.check_token(credentials, request.header("x-tc-token")) != Token::Right {
        return Err(refuse(
            200,
            "AuthFailure.TokenFailure",
            "The provided token is wrong or has expired.",
        ));
    }
    Ok(())
}

/// What an `Authorization` header of the API says of itself.
struct ApiClaim<'a> {
    secret_id: &'a str,
    scope: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> ApiClaim<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut fields = text.strip_prefix("TC3-HMAC-SHA256 ")?.split(',');
        let mut field = |name: &str| fields.next()?.trim().strip_prefix(name);
        let (secret_id, scope) = field("Credential=")?.split_once('/')?;
        let signed_headers = field("SignedHeaders=")?;
        let signature = field("Signature=")?;
        let service = match scope.split('/').collect::<Vec<_>>()[..] {
            [_, service, "tc3_request"] => service,
            _ => return None,
        };
        Some(Self {
            secret_id,
            scope,
            service,
            signed_headers,
            signature,
        })
    }
}

/// The received values of the headers called `names`; `None` where one is missing.
fn received_headers<'a>(
    request: &'a Received,
    names: &[&'a str],
) -> Option<Vec<(&'a str, &'a str)>> {
    names
        .iter()
        .filter(|name| !name.is_empty())
        .map(|name| Some((*name, request.header(name)?.trim())))
        .collect()
}

/// Checks a request to COS: by its `Authorization` header, else by its query.
pub(super) fn cos(gate: &Gate<'_>, request: &Received) -> Result<(), Refusal> {
    let invalid = || refuse(400, "InvalidURI", "Could not parse the specified URI.");
    let parameters = query_pairs(&request.query).ok_or_else(invalid)?;
    let path = percent_decode(&request.path).ok_or_else(invalid)?;
    let claim = CosClaim::find(request, &parameters)
        .ok_or_else(|| refuse(403, "AccessDenied", "Access Denied."))?;
    if claim.algorithm != "sha1" {
        return Err(refuse(
            403,
            "AccessDenied",
            "The signature algorithm is not supported.",
        ));
    }
    let credentials = gate.credentials(&claim.secret_id).ok_or_else(|| {
        refuse(
            403,
            "InvalidAccessKeyId",
            "The Access Key Id you provided does not exist in our records",
        )
    })?;
    let window = claim.window.ok_or_else(|| {
        refuse(
            403,
            "AccessDenied",
            "The time of the signature is malformed.",
        )
    })?;
    check_window(gate.now, window)?;

    let signed_parameters = claim.signed_parameters(&parameters);
    let names: Vec<&str> = claim.header_list.split(';').collect();
    let headers = received_headers(request, &names);
    let mismatch = |details| Refusal {
        details,
        ..refuse(
            403,
            "SignatureDoesNotMatch",
            "The Signature you specified is invalid.",
        )
    };
    let (Some(signed_parameters), Some(headers)) = (signed_parameters, headers) else {
        return Err(mismatch(Vec::new()));
    };
    let http_string = cos::HttpString::new(&cos::Request {
        method: &request.method,
        path: &path,
        parameters: &signed_parameters,
        headers: &headers,
    });
    let to_sign = cos::StringToSign::new(&http_string, window);
    if to_sign.sign(credentials, window) != claim.signature {
        return Err(mismatch(vec![
            ("StringToSign", to_sign.to_string()),
            ("FormatString", http_string.to_string()),
        ]));
    }
    let token = request.header("x-cos-security-token").or_else(|| {
        let mut pairs = parameters.iter();
        let found = pairs.find(|(name, _)| name == "x-cos-security-token");
        found.map(|(_, value)| value.as_str())
    });
    match gate.check_token(credentials, token) {
        Token::Right => Ok(()),
        Token::Wrong => Err(refuse(
            403,
            "InvalidAccessKeyId",
            "The security token you provided is not that of the Access Key Id.",
        )),
        Token::Expired => Err(refuse(
            400,
            "ExpiredToken",
            "The security token you provided has expired.",
        )),
    }
}

fn check_window(now: DateTime<Utc>, window: cos::KeyTime) -> Result<(), Refusal> {
    let now = now.timestamp();
    if window.start.0.saturating_sub(now) > COS_SKEW_SECONDS {
        return Err(refuse(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the server's time is too large.",
        ));
    }
    if window.end.0 < now || window.end < window.start {
        return Err(refuse(403, "AccessDenied", "Request has expired"));
    }
    Ok(())
}

/// The seven pairs of a COS signature.
#[derive(Debug, Default)]
struct CosClaim {
    algorithm: String,
    secret_id: String,
    window: Option<cos::KeyTime>,
    header_list: String,
    parameter_list: String,
    signature: String,
}

impl CosClaim {
    fn find(request: &Received, parameters: &[(String, String)]) -> Option<Self> {
        match request.header("authorization") {
            Some(header) => {
                let pairs = header.split('&').map(|pair| pair.split_once('='));
                pairs.collect::<Option<Vec<_>>>().map(Self::from_pairs)
            }
            None => {
                let pairs: Vec<_> = parameters
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .filter(|(name, _)| is_signature_parameter(name))
                    .collect();
                (!pairs.is_empty()).then(|| Self::from_pairs(pairs))
            }
        }
    }

    fn from_pairs(pairs: Vec<(&str, &str)>) -> Self {
        let mut claim = Self::default();
        let mut sign_time = None;
        for (name, value) in pairs {
            let field = match name {
                "q-sign-algorithm" => &mut claim.algorithm,
                "q-ak" => &mut claim.secret_id,
                "q-header-list" => &mut claim.header_list,
                "q-url-param-list" => &mut claim.parameter_list,
                "q-signature" => &mut claim.signature,
                "q-sign-time" => {
                    sign_time = parse_window(value);
                    continue;
                }
                "q-key-time" => {
                    claim.window = parse_window(value);
                    continue;
                }
                _ => continue,
            };
            value.clone_into(field);
        }
        // Tencent demands both times and defines them as the same.
        if sign_time != claim.window {
            claim.window = None;
        }
        claim
    }

    /// The received parameters that the list names; `None` where the list names one that did not
    /// come.
    fn signed_parameters<'p>(
        &self,
        parameters: &'p [(String, String)],
    ) -> Option<Vec<(&'p str, &'p str)>> {
        let names = self
            .parameter_list
            .split(';')
            .filter(|name| !name.is_empty());
        names
            .map(|listed| {
                let found = parameters.iter().find(|(name, _)| {
                    let encoded = crate::auth::percent_encode(name).to_ascii_lowercase();
                    encoded == listed.to_ascii_lowercase()
                });
                found.map(|(name, value)| (name.as_str(), value.as_str()))
            })
            .collect()
    }
}

/// Whether a query parameter belongs to a signature in URL form.
pub(super) fn is_signature_parameter(name: &str) -> bool {
    matches!(
        name,
        "q-sign-algorithm"
            | "q-ak"
            | "q-sign-time"
            | "q-key-time"
            | "q-header-list"
            | "q-url-param-list"
            | "q-signature"
    )
}

fn parse_window(text: &str) -> Option<cos::KeyTime> {
    let (start, end) = text.split_once(';')?;
    Some(cos::KeyTime {
        start: Timestamp(start.parse().ok()?),
        end: Timestamp(end.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn credentials() -> Credentials {
        Credentials {
            secret_id: "AKIDtest".to_owned(),
            secret_key: Secret::new("key"),
            token: None,
            expires_at: None,
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn code(accepted: &[Credentials], now: i64, request: &Received, api_service: bool) -> String {
        let gate = Gate {
            accepted,
            now: at(now),
            has_expired_tokens: false,
        };
        let result = if api_service {
            api(&gate, request, "cvm")
        } else {
            cos(&gate, request)
        };
        result.map_or_else(|refusal| refusal.code.to_owned(), |()| "ok".to_owned())
    }

    fn api_request(body: &'static str, service: &str) -> Received {
        let headers = [
            ("content-type", "application/json"),
            ("host", "cvm.tencentcloudapi.com"),
        ];
        let authorization = tc3::Authorization::new(
            &credentials(),
            service,
            Timestamp(NOW),
            &tc3::Request {
                method: "POST",
                path: "/",
                query: "",
                headers: &headers,
                payload: body.as_bytes(),
            },
        );
        let mut headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        headers.push(("x-tc-timestamp".to_owned(), NOW.to_string()));
        headers.push(("authorization".to_owned(), authorization.to_string()));
        Received {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            host: "cvm.tencentcloudapi.com".to_owned(),
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn the_api_accepts_what_was_signed_and_nothing_else() {
        let known = [credentials()];
        let good = api_request("{}", "cvm");
        assert_eq!(code(&known, NOW, &good, true), "ok");
        assert_eq!(code(&known, NOW + 300, &good, true), "ok");
        assert_eq!(
            code(&known, NOW + 301, &good, true),
            "AuthFailure.SignatureExpire"
        );
        assert_eq!(
            code(&known, NOW - 301, &good, true),
            "AuthFailure.SignatureExpire"
        );
        assert_eq!(code(&[], NOW, &good, true), "AuthFailure.SecretIdNotFound");
        let mut changed = good.clone();
        changed.body = Bytes::from_static(b"{ }");
        assert_eq!(
            code(&known, NOW, &changed, true),
            "AuthFailure.SignatureFailure"
        );
        let mut charset = good.clone();
        charset.headers[0].1.push_str("; charset=utf-8");
        assert_eq!(
            code(&known, NOW, &charset, true),
            "AuthFailure.SignatureFailure"
        );
        assert_eq!(
            code(&known, NOW, &api_request("{}", "cam"), true),
            "AuthFailure.SignatureFailure"
        );
        let mut anonymous = good.clone();
        anonymous.headers.pop();
        assert_eq!(
            code(&known, NOW, &anonymous, true),
            "AuthFailure.InvalidAuthorization"
        );
        let mut token = good;
        token
            .headers
            .push(("x-tc-token".to_owned(), "t".to_owned()));
        assert_eq!(code(&known, NOW, &token, true), "AuthFailure.TokenFailure");
    }

    fn cos_request(presigned: bool) -> Received {
        let host = "b-1250000000.cos.ap-guangzhou.myqcloud.com";
        let authorization = cos::Authorization::new(
            &credentials(),
            cos::KeyTime {
                start: Timestamp(NOW),
                end: Timestamp(NOW + 600),
            },
            &cos::Request {
                method: "GET",
                path: "/腾 讯",
                parameters: &[("versionId", "a/b")],
                headers: &[("host", host)],
            },
        );
        let mut request = Received {
            method: "GET".to_owned(),
            path: "/%E8%85%BE%20%E8%AE%AF".to_owned(),
            query: "versionId=a%2Fb".to_owned(),
            host: host.to_owned(),
            headers: vec![("host".to_owned(), host.to_owned())],
            body: Bytes::new(),
        };
        if presigned {
            request.query.push('&');
            request.query.push_str(&authorization.to_query());
        } else {
            let header = ("authorization".to_owned(), authorization.to_string());
            request.headers.push(header);
        }
        request
    }

    #[test]
    fn cos_accepts_header_and_url_form_within_their_window() {
        let known = [credentials()];
        for presigned in [false, true] {
            let good = cos_request(presigned);
            let check = |now, request: &Received| code(&known, now, request, false);
            assert_eq!(check(NOW, &good), "ok");
            assert_eq!(check(NOW - 900, &good), "ok");
            assert_eq!(check(NOW - 901, &good), "RequestTimeTooSkewed");
            assert_eq!(check(NOW + 601, &good), "AccessDenied");
            let mut elsewhere = good.clone();
            elsewhere.headers[0].1 = "c-1250000000.cos.ap-guangzhou.myqcloud.com".to_owned();
            assert_eq!(check(NOW, &elsewhere), "SignatureDoesNotMatch");
            let mut other = good.clone();
            other.query = other.query.replacen("a%2Fb", "a%2Fc", 1);
            assert_eq!(check(NOW, &other), "SignatureDoesNotMatch");
            assert_eq!(code(&[], NOW, &good, false), "InvalidAccessKeyId");
        }
    }

    #[test]
    fn a_refused_cos_signature_shows_what_was_hashed_and_no_key() {
        let mut request = cos_request(false);
        request.path = "/other".to_owned();
        let accepted = [credentials()];
        let gate = Gate {
            accepted: &accepted,
            now: at(NOW),
            has_expired_tokens: false,
        };
        let refusal = cos(&gate, &request).expect_err("the path was not signed");
        let shown = format!("{refusal:?}");
        assert!(shown.contains("FormatString") && shown.contains("/other"));
        assert!(!shown.contains("\"key\""));
    }
}
