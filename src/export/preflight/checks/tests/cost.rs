//! What an export may cost.

use super::*;

#[test]
fn a_limit_holds_the_upper_end_and_refuses_what_is_unknown() {
    // Two disks of 50 GiB for a month are 100 × 0.024 = 2.40, and requests are below a cent.
    let cases: &[Case<'_>] = &[
        (
            "enough",
            |facts| facts.cost = Some(cost("2.41")),
            Pass,
            &["at most 2.40", "USD"],
        ),
        (
            "too little",
            |facts| facts.cost = Some(cost("2.40")),
            Fail,
            &[
                "may cost 2.40",
                "`--max-cost` allows 2.40",
                "2023-07-10",
                "estimate",
            ],
        ),
        (
            "a region without prices",
            |facts| {
                let mut request = samples::request();
                request.region = region("ap-jakarta");
                let plan = CostPlan::default();
                let budget = cost("1000").budget;
                facts.cost = Some(CostFacts::of(&request, &facts.image, &plan, &budget));
            },
            Fail,
            &["no region `ap-jakarta`", "--prices"],
        ),
        (
            "an image that may not be seen",
            |facts| {
                let plan = CostPlan::default();
                let budget = cost("1000").budget;
                facts.cost = Some(CostFacts::of(&facts.request, &denied(), &plan, &budget));
            },
            Unknown,
            &["sizes are not known", "denied by CAM"],
        ),
    ];
    assert_cases(CheckName::Cost, cases);
}
