//! What the text of a statement becomes on its way to the server, foreseen from an earlier one that was like it.
//!
//! A client turns a statement into another text before it sends it: names without the catalog, parentheses, functions in
//! the place of operators. Statements of one [`Template`] mostly become texts of one template too, with the same literals.
//! Whoever foresees a text has to compare it with what the statement has really become.

use std::collections::HashMap;

use crate::template::Template;

/// Statements that are known.
const STATEMENTS_MAX: usize = 256;

/// What statements have become, and of each what else is known, a `T`.
#[derive(Debug)]
pub struct Rewrites<T> {
    /// By their template. `None` for one of which nothing is to be foreseen any more.
    by_template: HashMap<String, Option<(Rewrite, T)>>,
}

impl<T> Default for Rewrites<T> {
    fn default() -> Self {
        Self {
            by_template: HashMap::new(),
        }
    }
}

/// A text in which literals are to be put: between every two pieces one of them.
#[derive(Debug, PartialEq, Eq)]
struct Rewrite {
    pieces: Vec<String>,
}

impl<T> Rewrites<T> {
    /// What `typed` will most likely be sent as, and what is known of the last one like it. `None` if there was none.
    #[must_use]
    pub fn foresee(&self, typed: &str) -> Option<(String, &T)> {
        if self.by_template.is_empty() {
            return None;
        }
        let template = template_of(typed)?;
        let (rewrite, known) = self.by_template.get(&template.text)?.as_ref()?;
        Some((rewrite.with(&template)?, known))
    }

    /// Remembers that `typed` has been sent as `sent`, and what is `known` of it. If they do not have the same literals in the
    /// same order, there is nothing to remember. When there are too many, all are forgotten.
    pub fn learn(&mut self, typed: &str, sent: &str, known: T) {
        let Some(template) = template_of(typed) else { return };
        if let Some(None) = self.by_template.get(&template.text) {
            return;
        }
        let Some(rewrite) = Template::of(sent).and_then(|sent_template| Rewrite::of(&template, sent, &sent_template))
        else {
            return;
        };
        if self.by_template.len() >= STATEMENTS_MAX {
            self.by_template.clear();
        }
        self.by_template.insert(template.text, Some((rewrite, known)));
    }

    /// Statements like `typed` do not always become what was foreseen: nothing is foreseen of them any more.
    pub fn give_up(&mut self, typed: &str) {
        if let Some(template) = template_of(typed)
            && let Some(known) = self.by_template.get_mut(&template.text)
        {
            *known = None;
        }
    }
}

/// Without the semicolon at its end, which says nothing.
fn template_of(typed: &str) -> Option<Template<'_>> {
    Template::of(typed.trim_end_matches(|c: char| c == ';' || c.is_whitespace()))
}

impl Rewrite {
    fn of(typed: &Template<'_>, sent: &str, sent_template: &Template<'_>) -> Option<Self> {
        if typed.literals.len() != sent_template.literals.len() {
            return None;
        }
        let mut pieces = Vec::with_capacity(typed.literals.len() + 1);
        let mut at = 0;
        for (typed, sent_literal) in typed.literals.iter().zip(&sent_template.literals) {
            if typed.kind != sent_literal.kind || typed.text != sent_literal.text {
                return None;
            }
            pieces.push(sent[at..sent_literal.offset].to_owned());
            at = sent_literal.offset + sent_literal.source().len();
        }
        pieces.push(sent[at..].to_owned());
        Some(Self { pieces })
    }

    fn with(&self, template: &Template<'_>) -> Option<String> {
        let (first, rest) = self.pieces.split_first()?;
        if rest.len() != template.literals.len() {
            return None;
        }
        let mut text = first.clone();
        for (literal, piece) in template.literals.iter().zip(rest) {
            text.push_str(&literal.source());
            text.push_str(piece);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_literals_are_put_in_their_places() {
        let mut rewrites = Rewrites::<()>::default();
        assert_eq!(rewrites.foresee("FROM dh.t WHERE k = 1 AND s = 'a'"), None);
        rewrites.learn(
            "FROM dh.t WHERE k = 1 AND s = 'a'",
            "SELECT * FROM t WHERE ((k = 1) AND (s = 'a'))",
            (),
        );
        assert_eq!(
            rewrites.foresee("FROM dh.t WHERE k = 27 AND s = 'it''s' ;").unwrap().0,
            "SELECT * FROM t WHERE ((k = 27) AND (s = 'it''s'))"
        );
        for other in [
            "FROM dh.t WHERE k = 1 AND s = 2",
            "FROM dh.t WHERE k = -1 AND s = 'a'",
            "FROM dh.u WHERE k = 1 AND s = 'a'",
            "FROM dh.t WHERE k = ? AND s = 'a'",
        ] {
            assert_eq!(rewrites.foresee(other), None, "{other}");
        }
    }

    #[test]
    fn a_statement_without_literals_is_known_too() {
        let mut rewrites = Rewrites::<()>::default();
        rewrites.learn("FROM dh.t", "SELECT * FROM t", ());
        assert_eq!(rewrites.foresee("FROM dh.t;").unwrap().0, "SELECT * FROM t");
    }

    #[test]
    fn literals_that_have_become_others_are_not_foreseen() {
        for (typed, sent) in [
            ("FROM dh.t WHERE k = 1 + 2", "SELECT * FROM t WHERE (k = 3)"),
            ("FROM dh.t WHERE k = 1", "SELECT * FROM t WHERE (k = '1')"),
            ("FROM dh.t WHERE k = 007", "SELECT * FROM t WHERE (k = 7)"),
            ("FROM dh.t LIMIT 1 OFFSET 2", "SELECT * FROM t OFFSET 2 LIMIT 1"),
            ("FROM dh.t WHERE k = 1", "SELECT $$x$$ FROM t WHERE (k = 1)"),
        ] {
            let mut rewrites = Rewrites::<()>::default();
            rewrites.learn(typed, sent, ());
            assert_eq!(rewrites.foresee(typed), None, "{typed}");
        }
    }

    #[test]
    fn what_was_given_up_is_not_learnt_again() {
        let mut rewrites = Rewrites::<()>::default();
        rewrites.learn("FROM dh.t LIMIT 1", "SELECT * FROM t LIMIT 1", ());
        rewrites.give_up("FROM dh.t LIMIT 2");
        rewrites.learn("FROM dh.t LIMIT 3", "SELECT * FROM t LIMIT 3", ());
        assert_eq!(rewrites.foresee("FROM dh.t LIMIT 1"), None);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut rewrites = Rewrites::<()>::default();
        for i in 0..10 * STATEMENTS_MAX {
            rewrites.learn(&format!("FROM dh.t{i}"), "SELECT * FROM t", ());
            assert!(rewrites.by_template.len() <= STATEMENTS_MAX);
        }
    }

    proptest! {
        #[test]
        fn what_was_learnt_is_foreseen(typed in "[a-z0-9'\". =();-]{0,40}", sent in "[a-z0-9'\". =()-]{0,40}") {
            let mut rewrites = Rewrites::<()>::default();
            rewrites.learn(&typed, &sent, ());
            if let Some((foreseen, ())) = rewrites.foresee(&typed) {
                prop_assert_eq!(foreseen, sent);
            }
        }

        #[test]
        fn all_of_a_text_is_kept(sql in "[a-z0-9'\". =()-]{0,40}") {
            let mut rewrites = Rewrites::<()>::default();
            rewrites.learn(&sql, &sql, ());
            prop_assert_eq!(rewrites.foresee(&sql).is_some(), Template::of(&sql).is_some());
        }
    }
}
