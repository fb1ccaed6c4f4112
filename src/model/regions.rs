//! The region codes that this version has heard of.

use super::Region;

/// Codes of CVM and COS, the finance regions included (DescribeZones, product page 213/35071; COS,
/// product page 436/6224; the constants of the Go SDK).
const KNOWN: &[&str] = &[
    "ap-bangkok",
    "ap-beijing",
    "ap-beijing-1",
    "ap-beijing-fsi",
    "ap-chengdu",
    "ap-chongqing",
    "ap-guangzhou",
    "ap-guangzhou-open",
    "ap-hongkong",
    "ap-jakarta",
    "ap-mumbai",
    "ap-nanjing",
    "ap-qingyuan",
    "ap-seoul",
    "ap-shanghai",
    "ap-shanghai-fsi",
    "ap-shenzhen",
    "ap-shenzhen-fsi",
    "ap-singapore",
    "ap-taipei",
    "ap-tianjin",
    "ap-tokyo",
    "eu-frankfurt",
    "eu-moscow",
    "na-ashburn",
    "na-siliconvalley",
    "na-toronto",
    "sa-saopaulo",
];
/// Codes outside the mainland, whose images are copied among themselves only (product page 213/4943).
const ABROAD: &[&str] = &[
    "ap-bangkok",
    "ap-hongkong",
    "ap-jakarta",
    "ap-mumbai",
    "ap-seoul",
    "ap-singapore",
    "ap-tokyo",
    "eu-frankfurt",
    "eu-moscow",
    "na-ashburn",
    "na-siliconvalley",
    "na-toronto",
    "sa-saopaulo",
];
/// Codes of COS alone: zone 1 of Beijing is sold out, and CVM has no such region (COS, product page
/// 436/6224).
const STORAGE_ONLY: &[&str] = &["ap-beijing-1"];
/// Codes on the mainland.
const MAINLAND: &[&str] = &[
    "ap-beijing",
    "ap-beijing-1",
    "ap-chengdu",
    "ap-chongqing",
    "ap-guangzhou",
    "ap-nanjing",
    "ap-qingyuan",
    "ap-shanghai",
    "ap-shenzhen",
    "ap-tianjin",
];
/// Edge zones have codes of their own, such as `ap-jinan-ec`.
const EDGE: &str = "-ec";
const FINANCE: &str = "-fsi";

impl Region {
    /// Whether this version has heard of the region. New ones open, so an unknown code is worth a
    /// warning and never a refusal.
    #[must_use]
    pub fn is_known(&self) -> bool {
        KNOWN.contains(&self.as_str()) || self.as_str().ends_with(EDGE)
    }

    /// Whether it is on the mainland; `None` for regions of which this is not known, or that are apart from
    /// all others, such as the finance regions.
    #[must_use]
    pub fn is_mainland(&self) -> Option<bool> {
        let is_in = |codes: &[&str]| codes.contains(&self.as_str());
        match (is_in(MAINLAND), is_in(ABROAD)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// Whether CVM may have images there; new regions are taken to have them.
    #[must_use]
    pub fn has_images(&self) -> bool {
        !STORAGE_ONLY.contains(&self.as_str())
    }

    /// Whether it is a finance region, which is isolated and has hosts of its own (API page 213/73474,
    /// "Request structure").
    #[must_use]
    pub fn is_finance(&self) -> bool {
        self.as_str().ends_with(FINANCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_that_open_later_are_unknown_and_still_regions() {
        let region = |text: &str| text.parse::<Region>().expect("a region");
        for code in ["ap-guangzhou", "ap-shanghai-fsi", "ap-jinan-ec"] {
            assert!(region(code).is_known(), "{code}");
        }
        for code in ["ap-osaka", "me-riyadh", "ap-guangzho"] {
            assert!(!region(code).is_known(), "{code}");
        }
        for (code, expected) in [
            ("ap-guangzhou", Some(true)),
            ("ap-hongkong", Some(false)),
            ("eu-frankfurt", Some(false)),
            ("ap-shanghai-fsi", None),
            ("ap-jinan-ec", None),
            ("ap-osaka", None),
        ] {
            assert_eq!(region(code).is_mainland(), expected, "{code}");
        }
        for code in MAINLAND.iter().chain(ABROAD) {
            assert!(region(code).is_known(), "{code}");
        }
        assert!(!region("ap-beijing-1").has_images());
        assert!(region("ap-beijing").has_images() && region("ap-osaka").has_images());
        assert!(region("ap-shanghai-fsi").is_finance());
        assert!(!region("ap-shanghai").is_finance());
    }
}
