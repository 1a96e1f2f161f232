//! The service through its real router, each test on a database of its own. Test names are claims.

mod support;

mod levers_smoke;
