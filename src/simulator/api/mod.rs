//! API 3.0: the envelope, the checks that come before any action, and the table of actions.
//!
//! A request passes the gates in the order of the real gateway: transport, common headers,
//! signature, action and version, region, rate limit, parameters, the caller's rights. The first that
//! refuses answers, always with HTTP 200.

mod cam;
mod cbs;
mod cvm;
mod export_images;
mod image_copies;
mod parameters;
mod platform;
mod rates;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::verify::{self, Gate, Refusal};
use super::wire::{Answer, Received, uuid};
use super::world::World;
use parameters::{Field, Parameters};

pub(super) use rates::Rates;

/// The services that are simulated, by the first label of their hosts.
pub(super) const SERVICES: &[&str] = &["cvm", "cam", "cbs", "sts", "region"];

/// Region codes that the API knows (DescribeZones, product page 213/35071).
const REGIONS: &[(&str, &str)] = &[
    ("ap-guangzhou", "South China (Guangzhou)"),
    ("ap-shanghai", "East China (Shanghai)"),
    ("ap-nanjing", "East China (Nanjing)"),
    ("ap-beijing", "North China (Beijing)"),
    ("ap-chengdu", "Southwest China (Chengdu)"),
    ("ap-chongqing", "Southwest China (Chongqing)"),
    ("ap-shanghai-fsi", "Shanghai Finance"),
    ("ap-shenzhen-fsi", "Shenzhen Finance"),
    ("ap-hongkong", "Hong Kong, Macao and Taiwan (Hong Kong)"),
    ("ap-singapore", "Southeast Asia (Singapore)"),
    ("ap-jakarta", "Southeast Asia (Jakarta)"),
    ("ap-bangkok", "Southeast Asia (Bangkok)"),
    ("ap-seoul", "Northeast Asia (Seoul)"),
    ("ap-tokyo", "Northeast Asia (Tokyo)"),
    ("na-siliconvalley", "West US (Silicon Valley)"),
    ("na-ashburn", "East US (Virginia)"),
    ("sa-saopaulo", "South America (Sao Paulo)"),
    ("eu-frankfurt", "Europe (Frankfurt)"),
];

/// The largest body under TC3 (page "Request Structure").
const BODY_LIMIT_BYTES: usize = 10 << 20;

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    code: String,
    message: String,
}

impl ApiError {
    pub(super) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

/// Which host of the API was addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiHost {
    /// The first label.
    pub(super) service: String,
    /// The region, where the host names one.
    pub(super) region: Option<String>,
    /// Whether it is a host of the international site, which speaks English by default.
    pub(super) is_international: bool,
}

impl ApiHost {
    /// Reads `cvm.tencentcloudapi.com` and its variants.
    pub(super) fn parse(host: &str) -> Option<Self> {
        let labels = host.strip_suffix(".tencentcloudapi.com")?;
        let (service, middle) = match labels.split_once('.') {
            Some((service, middle)) => (service, Some(middle)),
            None => (labels, None),
        };
        let region = match middle {
            Some("intl" | "internal") => None,
            // The internal network's host of one region.
            Some(middle) => Some(middle.strip_prefix("internal.").unwrap_or(middle)),
            None => None,
        };
        let is_region = |text: &str| text.parse::<crate::model::Region>().is_ok();
        if !region.is_none_or(is_region) {
            return None;
        }
        Some(Self {
            service: service.to_owned(),
            region: region.map(str::to_owned),
            is_international: middle == Some("intl"),
        })
    }
}

/// What one call may know besides its parameters.
#[derive(Clone, Copy, Debug)]
struct Scene<'a> {
    /// `X-TC-Region`, where the action needs one.
    region: &'a str,
    /// The server's time.
    now: DateTime<Utc>,
    /// The SecretId that the request is signed with; empty where it is not signed.
    caller: &'a str,
}

/// An action: what it is called, what it takes, and what it does.
struct Action {
    service: &'static str,
    name: &'static str,
    version: &'static str,
    needs_region: bool,
    /// Calls in a second; 0 where no limit is published.
    rate: usize,
    fields: &'static [Field],
    run: fn(&mut World, &Scene<'_>, &Parameters) -> Result<Value, ApiError>,
}

const ACTIONS: &[&[Action]] = &[
    cvm::ACTIONS,
    image_copies::ACTIONS,
    cam::ACTIONS,
    cbs::ACTIONS,
    platform::ACTIONS,
];

/// The names of all actions.
pub(super) fn operations() -> impl Iterator<Item = &'static str> {
    let actions = ACTIONS.iter().flat_map(|actions| actions.iter());
    actions.map(|action| action.name)
}

/// The action that the headers name, for log and faults; whether it exists is another question.
pub(super) fn operation(request: &Received) -> String {
    request
        .header("x-tc-action")
        .unwrap_or("Unknown")
        .to_owned()
}

/// Answers a request to `host`.
pub(super) fn answer(
    world: &mut World,
    rates: &mut Rates,
    host: &ApiHost,
    request: &Received,
    now: DateTime<Utc>,
    has_expired_tokens: bool,
) -> Answer {
    let gate = Gate {
        accepted: &world.accepted.clone(),
        now,
        has_expired_tokens,
    };
    let result = run(world, rates, host, request, &gate);
    envelope(result, is_english(host, request))
}

/// An error that nothing in the world caused.
pub(super) fn error_answer(host: &ApiHost, request: &Received, code: &str) -> Answer {
    let error = ApiError::new(code, "The call was refused.");
    envelope(Err(error), is_english(host, request))
}

fn is_english(host: &ApiHost, request: &Received) -> bool {
    match request.header("x-tc-language") {
        Some(language) => language.eq_ignore_ascii_case("en-US"),
        None => host.is_international,
    }
}

fn envelope(result: Result<Value, ApiError>, is_english: bool) -> Answer {
    let request_id = uuid();
    let mut code = None;
    let mut response = result.unwrap_or_else(|error| {
        let message = match chinese(&error.code) {
            Some(message) if !is_english => message.to_owned(),
            _ => error.message,
        };
        code = Some(error.code.clone());
        json!({"Error": {"Code": error.code, "Message": message}})
    });
    response["RequestId"] = json!(request_id);
    let body = json!({"Response": response}).to_string();
    let mut answer = Answer::new(200, "application/json", body).with_header("Server", "nginx");
    answer.code = code;
    answer.request_id = request_id;
    answer
}

fn run(
    world: &mut World,
    rates: &mut Rates,
    host: &ApiHost,
    request: &Received,
    gate: &Gate<'_>,
) -> Result<Value, ApiError> {
    check_transport(request)?;
    if !platform::is_unsigned(host, request) {
        verify::api(gate, request, &host.service)?;
    }
    let caller = verify::signer(request).unwrap_or_default();
    let action = find_action(host, request)?;
    let region = request.header("x-tc-region").unwrap_or_default();
    check_region(world, host, action, region)?;
    if world.rate_limits_kept && !rates.admit(action.name, action.rate, world.elapsed()) {
        return Err(ApiError::new(
            "RequestLimitExceeded",
            format!(
                "Your current request times equals to `{}` in a second, which exceeds the frequency \
                 limit `{}` for a second. Please reduce the frequency of calls.",
                action.rate + 1,
                action.rate
            ),
        ));
    }
    let parameters = Parameters::read(&request.body, action.fields)?;
    if world.denied.contains(action.name) {
        return Err(ApiError::new(
            "UnauthorizedOperation",
            format!(
                "You are not authorized to perform operation ({}:{})\nresource (*) has no permission",
                action.service, action.name
            ),
        ));
    }
    let scene = Scene {
        region,
        now: gate.now,
        caller: &caller,
    };
    (action.run)(world, &scene, &parameters)
}

fn check_transport(request: &Received) -> Result<(), ApiError> {
    if request.method != "POST" || request.path != "/" {
        return Err(ApiError::new(
            "UnsupportedProtocol",
            "The simulator takes POST requests to / only.",
        ));
    }
    let content_type = request.header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(
            "UnsupportedProtocol",
            format!("The content type `{content_type}` is not supported."),
        ));
    }
    if request.body.len() > BODY_LIMIT_BYTES {
        return Err(ApiError::new(
            "RequestSizeLimitExceeded",
            "The size of the request exceeds 10 MB.",
        ));
    }
    for name in [
        "X-TC-Action",
        "X-TC-Version",
        "X-TC-Timestamp",
        "Authorization",
    ] {
        let value = request.header(&name.to_ascii_lowercase());
        if value.is_none_or(str::is_empty) {
            return Err(ApiError::new(
                "MissingParameter",
                format!("The request is missing the required header `{name}`."),
            ));
        }
    }
    Ok(())
}

fn find_action(host: &ApiHost, request: &Received) -> Result<&'static Action, ApiError> {
    let name = operation(request);
    let action = ACTIONS
        .iter()
        .flat_map(|actions| actions.iter())
        .find(|action| action.service == host.service && action.name == name)
        .ok_or_else(|| {
            ApiError::new(
                "InvalidAction",
                format!("The request action=`{name}` is invalid or not found."),
            )
        })?;
    let version = request.header("x-tc-version").unwrap_or_default();
    if version != action.version {
        return Err(ApiError::new(
            "NoSuchVersion",
            format!("The request version=`{version}` of `{name}` does not exist."),
        ));
    }
    Ok(action)
}

fn check_region(
    world: &World,
    host: &ApiHost,
    action: &Action,
    region: &str,
) -> Result<(), ApiError> {
    if region.is_empty() {
        return if action.needs_region {
            Err(ApiError::new(
                "MissingParameter",
                "The request is missing a required parameter `Region`.",
            ))
        } else {
            Ok(())
        };
    }
    let is_listed = REGIONS.iter().any(|(code, _)| *code == region);
    let is_used = world
        .images
        .iter()
        .any(|image| image.region.as_str() == region)
        || world
            .buckets
            .values()
            .any(|bucket| bucket.region.as_str() == region);
    let is_of_host = match host.region.as_deref() {
        Some(pinned) => pinned == region,
        // Finance regions are isolated: no other host leads there.
        None => !region.ends_with("-fsi"),
    };
    if (is_listed || is_used) && is_of_host {
        return Ok(());
    }
    Err(ApiError::new(
        "UnsupportedRegion",
        format!("The service does not support the region `{region}` at this host."),
    ))
}

/// The Chinese message that the mainland hosts answer by default, for common codes.
fn chinese(code: &str) -> Option<&'static str> {
    let message = match code {
        "AuthFailure.SecretIdNotFound" => "密钥不存在。请在控制台检查密钥是否已被删除或者禁用。",
        "AuthFailure.SignatureExpire" => {
            "签名过期。Timestamp 和服务器时间相差不得超过五分钟,请检查本地时间是否和标准时间同步。"
        }
        "AuthFailure.SignatureFailure" => {
            "签名错误。签名计算错误,请对照调用方式中的签名方法文档检查签名计算过程。"
        }
        "AuthFailure.TokenFailure" => "token 错误。",
        "AuthFailure.InvalidAuthorization" => "请求头部的 Authorization 不符合腾讯云标准。",
        "AuthFailure.CamRoleNameAuthenticateFailed" => "CAM 角色名鉴权失败。",
        "InvalidAction" => "接口不存在。",
        "MissingParameter" => "缺少参数错误。",
        "UnknownParameter" => "未知参数错误,用户多传未定义的参数会导致错误。",
        "UnauthorizedOperation" => "未授权操作。",
        "RequestLimitExceeded" => "请求的次数超过了频率限制。",
        "UnsupportedRegion" => "接口不支持所传地域。",
        "InvalidImageId.NotFound" => "未找到该镜像。",
        "InvalidImageId.Malformed" => "无效镜像 ID 格式。",
        "InvalidParameterValue.BucketNotFound" => "请检查存储桶是否存在。",
        "LimitExceeded.ExportImageTaskLimitExceeded" => {
            "正在运行中的镜像导出任务已达上限,请等待已有任务完成后,再次发起重试。"
        }
        "UnsupportedOperation.WindowsImageExportUnsupported" => "不支持导出 Windows 镜像。",
        _ => return None,
    };
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_tell_service_region_and_site() {
        let host = |text| ApiHost::parse(text).map(|h| (h.service, h.region, h.is_international));
        let cvm = || "cvm".to_owned();
        assert_eq!(host("cvm.tencentcloudapi.com"), Some((cvm(), None, false)));
        assert_eq!(
            host("cvm.intl.tencentcloudapi.com"),
            Some((cvm(), None, true))
        );
        assert_eq!(
            host("cvm.internal.tencentcloudapi.com"),
            Some((cvm(), None, false))
        );
        assert_eq!(
            host("cvm.ap-beijing.tencentcloudapi.com"),
            Some((cvm(), Some("ap-beijing".to_owned()), false))
        );
        assert_eq!(
            host("cvm.internal.ap-beijing.tencentcloudapi.com"),
            Some((cvm(), Some("ap-beijing".to_owned()), false))
        );
        assert_eq!(host("cvm.intl.ap-beijing.tencentcloudapi.com"), None);
        assert_eq!(host("cvm.internal.intl.tencentcloudapi.com"), None);
        assert_eq!(host("cvm.example.com"), None);
        assert_eq!(host("cvm.x.tencentcloudapi.com"), None);
    }
}
