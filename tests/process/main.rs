//! The program as an operator meets it: started, stopped, killed, frozen, misconfigured. Test names are claims.
//!
//! Each test runs the real binary on a directory of its own and takes down what it started, also when it fails. Waiting is
//! for conditions, never for times. Linux only: the tests look into `/proc` to see what was left running.
#![cfg(target_os = "linux")]

mod settings;
mod standby;
mod storm;
mod support;

mod access;
mod archive;
mod audit;
mod beside;
mod clients;
mod copies;
mod counters;
mod crashes;
mod crowded;
mod demoted;
mod drain;
mod elsewhere;
mod frozen;
mod gates;
mod holds;
mod killed;
mod lifecycle;
mod logs;
mod measured;
mod overload;
mod pair;
mod pooler;
mod probes;
mod reconcile;
mod refusals;
mod replicated;
mod rewound;
mod schema;
mod starts;
mod turns;
mod untaken;
mod words;
