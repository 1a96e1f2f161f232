//! Reads this process's status from the kernel.

use std::fs;

/// The bit mask in `/proc/self/status` under this name; none where it cannot be read, as on macOS.
pub(crate) fn mask(name: &str) -> Option<u64> {
    mask_in(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn mask_in(status: &str, name: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_found_by_its_whole_name() {
        let status = "Name:\tx\nCapEffX:\t1\nCapEff:\t0000000000000021\nSigIgn:\tx\n";
        assert_eq!(mask_in(status, "CapEff"), Some(0x21));
        assert_eq!(mask_in(status, "SigIgn"), None);
        assert_eq!(mask_in("", "CapEff"), None);
    }
}
