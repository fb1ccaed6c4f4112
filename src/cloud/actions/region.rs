//! The region product, version 2022-06-27, which took `DescribeRegions` over from CVM.

use serde::{Deserialize, Serialize};

use super::null_as_default;
use crate::cloud::api::Action;
use crate::model::CloudText;

/// Lists the regions of a product (API page 213/15708).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeRegions {
    /// The product.
    pub product: &'static str,
}

impl DescribeRegions {
    /// The regions of CVM.
    #[must_use]
    pub fn of_cvm() -> Self {
        Self { product: "cvm" }
    }
}

impl Action for DescribeRegions {
    const SERVICE: &'static str = "region";
    const VERSION: &'static str = "2022-06-27";
    const NAME: &'static str = "DescribeRegions";
    type Response = DescribeRegionsResponse;
}

/// The regions.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeRegionsResponse {
    /// The regions.
    #[serde(default, deserialize_with = "null_as_default")]
    pub region_set: Vec<RegionEntry>,
}

/// A region.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegionEntry {
    /// Its code.
    pub region: CloudText,
}
