//! Bounds that the tripwire and the charter share. Only `+ - * /` and `sqrt`, which IEEE 754 rounds alike everywhere:
//! the same counts give the same bits on every machine.

/// The normal quantile of a one-sided 95 % bound, to three decimals, as tables have it.
pub const Z_95: f64 = 1.645;

/// The one-sided 95 % lower bound of a success rate by Wilson's score interval (Wilson 1927), 0 to 1. Of no trials: 0.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn wilson_lower(successes: i64, trials: i64) -> f64 {
    if trials <= 0 || successes <= 0 {
        return 0.0;
    }
    let (n, p) = (trials as f64, successes as f64 / trials as f64);
    let z2 = Z_95 * Z_95;
    let center = p + z2 / (2.0 * n);
    let margin = Z_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((center - margin) / (1.0 + z2 / n)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_is_what_the_tables_say() {
        let table = [
            (0, 50, 0.0),
            (1, 1, 0.269_831),
            (40, 50, 0.692_663),
            (45, 50, 0.808_453),
            (47, 50, 0.859_049),
            (50, 50, 0.948_658),
            (62, 75, 0.743_742),
            (85, 100, 0.782_09),
            (92, 100, 0.863_529),
            (100, 200, 0.442_23),
            (160, 200, 0.749_606),
            (171, 200, 0.809_304),
            (180, 200, 0.859_589),
            (190, 200, 0.918_105),
            (200, 200, 0.986_65),
        ];
        for (successes, trials, expected) in table {
            let bound = wilson_lower(successes, trials);
            assert!((bound - expected).abs() < 1e-6, "{successes}/{trials}: {bound}");
        }
    }
}
