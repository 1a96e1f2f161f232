//! The service through its real router, each test on a database of its own. Test names are claims.

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests are tests; a harness is used by some of its modules"
)]

mod support;

mod access;
mod age;
mod amounts;
mod approval;
mod archive;
mod audit;
mod authz;
mod bounded;
mod checkpoint;
mod disk;
mod enforcement;
mod exact;
mod flags;
mod go_live;
mod hang_up;
mod heimdall;
mod history;
mod idempotency;
mod input;
mod lease;
mod ledger;
mod life;
mod many;
mod openapi;
mod order;
mod paging;
mod partitions;
mod problems;
mod races;
mod regression;
mod request_lines;
mod review;
mod risk;
mod session;
mod stalled;
mod stops;
mod story;
mod tripwire;
mod unreadable;
mod upgrade;
mod writer;
