//! The distance between two names, to suggest the nearest ones for a misspelt name.

/// The number of letters that differ, if at most `most`. Case and separators between words do not count.
pub(crate) fn letters_apart(one: &str, other: &str, most: usize) -> Option<usize> {
    let bare = |name: &str| -> Vec<u8> {
        name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase()).collect()
    };
    let (one, other) = (bare(one), bare(other));
    if one.len().abs_diff(other.len()) > most {
        return None;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, against) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != against);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
        if row.iter().all(|distance| *distance > most) {
            return None;
        }
    }
    row.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_near_by_two_letters_whatever_stands_between_their_words() {
        let distance = |one: &str, other: &str| letters_apart(one, other, 2);
        assert_eq!(distance("WHOLESALE.contract_rate", "WHOLSALE.contract_rate"), Some(1));
        assert_eq!(distance("WHOLESALE.contract_rate", "WHOLESALE.contract-rate"), Some(0));
        assert_eq!(distance("CAPITAL.roi_event", "CAPITAL.roi_evetn"), Some(2));
        assert_eq!(distance("CAPITAL.roi_event", "CAPITAL.roi"), None);
        assert_eq!(distance("LAB.rate", "LAB.cost"), None);
    }
}
