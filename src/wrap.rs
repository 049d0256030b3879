//! Text for a terminal: at most [`WIDTH`] columns, harmless. Names come from logs and are hostile, so everything is escaped.

use flowtrail_ingest::escaped;

/// Columns of a line.
pub const WIDTH: usize = 100;

/// Wraps at [`WIDTH`] columns, after `first` on the first line and `rest` on the others; words longer than a line are cut.
/// Line ends in `text` become spaces.
pub fn wrap(out: &mut String, first: &str, rest: &str, text: &str) {
    let text = escaped(text.as_bytes()).replace("\\n", " ");
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = line.chars().count();
            let space = usize::from(!empty);
            if used + space + word.len() <= WIDTH {
                if !empty {
                    line.push(' ');
                }
                line.extend(&word);
                empty = false;
                break;
            }
            if empty {
                let room = WIDTH.saturating_sub(used).max(1);
                line.extend(word.drain(..room.min(word.len())));
            }
            out.push_str(line.trim_end());
            out.push('\n');
            rest.clone_into(&mut line);
            empty = true;
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// A named value; further lines stand below the value.
pub fn field(out: &mut String, name: &str, value: &str) {
    let first = format!("{name:<12} ");
    wrap(out, &first, &" ".repeat(first.len().min(24)), value);
}

/// A paragraph.
pub fn para(out: &mut String, indent: &str, text: &str) {
    wrap(out, indent, indent, text);
}

/// A text of several lines: each is wrapped by itself. Names in it were escaped line by line when it was made.
pub fn paras(out: &mut String, indent: &str, text: &str) {
    for line in text.lines() {
        para(out, indent, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_and_harmless() {
        let mut out = String::new();
        wrap(&mut out, "name         ", "    ", &format!("{} \u{1b}[31m {}", "word ".repeat(40), "x".repeat(250)));
        assert!(out.lines().all(|l| l.chars().count() <= WIDTH), "{out}");
        assert!(!out.contains('\u{1b}') && out.contains("\\u{1b}"));
        assert_eq!(out.matches('x').count(), 250);
    }
}
