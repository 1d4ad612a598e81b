//! Aliases: local names for remote tables.

use std::collections::BTreeMap;

use crate::name::{TableName, fold};

/// The aliases of one attached catalog. Local names are compared without regard to case.
///
/// ```
/// let mut aliases = duckherder_catalog::AliasRegistry::default();
/// aliases.register("orders", "sales.orders_2026".parse()?)?;
/// assert_eq!(aliases.resolve("ORDERS").map(|name| name.table.as_str()), Some("orders_2026"));
/// assert!(aliases.resolve("products").is_none());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AliasRegistry {
    by_local_name: BTreeMap<String, (String, TableName)>,
}

/// Why an alias could not be set or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// The local name has an alias already.
    #[error("table '{local}' is already registered (as remote table {remote}); unregister it first")]
    AlreadyRegistered {
        /// The local name.
        local: String,
        /// What it stands for now.
        remote: TableName,
    },
    /// The local name has no alias.
    #[error("table '{local}' is not registered")]
    NotRegistered {
        /// The local name.
        local: String,
    },
}

impl AliasRegistry {
    /// Makes `local` stand for `remote`, which need not exist yet.
    ///
    /// # Errors
    /// [`AliasError::AlreadyRegistered`]
    pub fn register(&mut self, local: &str, remote: TableName) -> Result<(), AliasError> {
        if let Some((local, remote)) = self.by_local_name.get(&fold(local)) {
            return Err(AliasError::AlreadyRegistered {
                local: local.clone(),
                remote: remote.clone(),
            });
        }
        self.by_local_name.insert(fold(local), (local.to_owned(), remote));
        Ok(())
    }

    /// Forgets what `local` stands for.
    ///
    /// # Errors
    /// [`AliasError::NotRegistered`]
    pub fn unregister(&mut self, local: &str) -> Result<(), AliasError> {
        match self.by_local_name.remove(&fold(local)) {
            Some(_) => Ok(()),
            None => Err(AliasError::NotRegistered {
                local: local.to_owned(),
            }),
        }
    }

    /// The remote table that `local` stands for, if it is an alias.
    #[must_use]
    pub fn resolve(&self, local: &str) -> Option<&TableName> {
        self.by_local_name.get(&fold(local)).map(|(_, remote)| remote)
    }

    /// All aliases, local name and remote table, by local name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TableName)> {
        self.by_local_name
            .values()
            .map(|(local, remote)| (local.as_str(), remote))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_local_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_set_once_and_removed_once() {
        let mut aliases = AliasRegistry::default();
        aliases.register("Products", "p".parse().unwrap()).unwrap();
        let error = aliases.register("PRODUCTS", "q".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "table 'Products' is already registered (as remote table \"p\"); unregister it first"
        );
        aliases.unregister("products").unwrap();
        assert_eq!(
            aliases.unregister("products").unwrap_err().to_string(),
            "table 'products' is not registered"
        );
    }
}
