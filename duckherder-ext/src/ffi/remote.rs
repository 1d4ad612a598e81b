//! Attached ducklings, their aliases, and sessions on them.

use std::sync::Arc;

use super::{DhBuffer, DhInterrupt, DhStatus, DhText, guard};
use crate::attach::AttachOptions;
use crate::error::Result;
use crate::remote::Remote;
use crate::session::RemoteSession;

/// An attached duckling.
pub struct DhRemote(pub(super) Arc<Remote>);

/// A client connection's session on an attached duckling.
pub struct DhSession(pub(super) RemoteSession);

/// One option of ATTACH.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DhOption {
    /// As written.
    pub name: DhText,
    /// As text.
    pub value: DhText,
}

/// Connects to a duckling.
///
/// # Safety
/// Texts are valid for the call, `options` points at `options_len` of them, `remote` and `error` at places for one each.
pub(super) unsafe extern "C" fn remote_attach(
    catalog_name: DhText,
    duckdb_version: DhText,
    options: *const DhOption,
    options_len: usize,
    interrupt: DhInterrupt,
    remote: *mut *mut DhRemote,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let pairs = unsafe { self::options(options, options_len)? };
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let options = AttachOptions::parse(&pairs)?;
        // SAFETY: the caller's promise.
        let (catalog_name, duckdb_version) = unsafe { (catalog_name.to_owned()?, duckdb_version.to_owned()?) };
        let attached = Remote::attach(&interrupt, &catalog_name, &options, &duckdb_version)?;
        // SAFETY: the caller's promise.
        unsafe { remote.write(Box::into_raw(Box::new(DhRemote(attached)))) };
        Ok(DhStatus::DhOk)
    })
}

/// Drops an attached duckling. Sessions and scans under way keep what they need.
///
/// # Safety
/// `remote` is null or came from [`remote_attach`], and is not used again.
pub(super) unsafe extern "C" fn remote_free(remote: *mut DhRemote) {
    if !remote.is_null() {
        guard(std::ptr::null_mut(), || {
            // SAFETY: made by `Box::into_raw`, freed once.
            drop(unsafe { Box::from_raw(remote) });
            Ok(DhStatus::DhOk)
        });
    }
}

/// `host:port` of an attached duckling, valid as long as it is.
///
/// # Safety
/// `remote` is live.
pub(super) unsafe extern "C" fn remote_address(remote: *const DhRemote) -> DhText {
    // SAFETY: the caller's promise.
    DhText::of(unsafe { &(*remote).0 }.address())
}

/// Sets an alias.
///
/// # Safety
/// `remote` is live, texts are valid for the call, `error` is a place for one buffer.
pub(super) unsafe extern "C" fn alias_register(
    remote: *const DhRemote,
    local_name: DhText,
    remote_name: DhText,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (remote, local_name, remote_name) =
            unsafe { (&(*remote).0, local_name.to_owned()?, remote_name.to_owned()?) };
        remote.register_alias(&local_name, &remote_name)?;
        Ok(DhStatus::DhOk)
    })
}

/// Removes an alias.
///
/// # Safety
/// As for [`alias_register`].
pub(super) unsafe extern "C" fn alias_unregister(
    remote: *const DhRemote,
    local_name: DhText,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (remote, local_name) = unsafe { (&(*remote).0, local_name.to_owned()?) };
        remote.unregister_alias(&local_name)?;
        Ok(DhStatus::DhOk)
    })
}

/// What an alias stands for: schema (empty for the default one) and table. `DhEnd` if it is no alias.
///
/// # Safety
/// `remote` is live, `local_name` is valid for the call, the outputs are places for one buffer each.
pub(super) unsafe extern "C" fn alias_resolve(
    remote: *const DhRemote,
    local_name: DhText,
    schema_name: *mut DhBuffer,
    table_name: *mut DhBuffer,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (remote, local_name) = unsafe { (&(*remote).0, local_name.to_owned()?) };
        let aliases = remote.aliases();
        let Some(name) = aliases.resolve(&local_name) else {
            return Ok(DhStatus::DhEnd);
        };
        // SAFETY: the caller's promise.
        unsafe {
            schema_name.write(DhBuffer::new(name.schema.clone().unwrap_or_default()));
            table_name.write(DhBuffer::new(name.table.clone()));
        }
        Ok(DhStatus::DhOk)
    })
}

/// Makes a session, which is opened on the duckling with its first request.
///
/// # Safety
/// `remote` is live; `session` and `error` are places for one each.
pub(super) unsafe extern "C" fn session_open(
    remote: *const DhRemote,
    session: *mut *mut DhSession,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let remote = Arc::clone(unsafe { &(*remote).0 });
        // SAFETY: the caller's promise.
        unsafe { session.write(Box::into_raw(Box::new(DhSession(RemoteSession::new(remote))))) };
        Ok(DhStatus::DhOk)
    })
}

/// Closes a session; the server rolls back what is open.
///
/// # Safety
/// `session` is null or came from [`session_open`], and is not used again.
pub(super) unsafe extern "C" fn session_free(session: *mut DhSession) {
    if !session.is_null() {
        guard(std::ptr::null_mut(), || {
            // SAFETY: made by `Box::into_raw`, freed once.
            drop(unsafe { Box::from_raw(session) });
            Ok(DhStatus::DhOk)
        });
    }
}

/// Says what the settings of the client connection are that change what a statement means.
///
/// # Safety
/// `session` is live, `settings` points at `settings_len` of them, texts are valid for the call, `error` is a place for
/// one buffer.
pub(super) unsafe extern "C" fn session_settings(
    session: *const DhSession,
    settings: *const DhOption,
    settings_len: usize,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, settings) = unsafe { (&(*session).0, options(settings, settings_len)?) };
        session.want_settings(settings.into_iter().collect());
        Ok(DhStatus::DhOk)
    })
}

/// Whether what the user has written is like a read that has been sent before. Never fails.
///
/// # Safety
/// `session` is live, `typed` is valid for the call.
pub(super) unsafe extern "C" fn session_foresees(session: *const DhSession, typed: DhText) -> bool {
    let mut foresees = false;
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let (session, typed) = unsafe { (&(*session).0, typed.to_owned()?) };
        foresees = session.foresees(&typed);
        Ok(DhStatus::DhOk)
    });
    foresees
}

/// Sends what the query that begins will most likely become; whether it was sent. Never fails.
///
/// # Safety
/// As for [`session_foresees`].
pub(super) unsafe extern "C" fn session_send_ahead(session: *const DhSession, typed: DhText) -> bool {
    let mut sent = false;
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let (session, typed) = unsafe { (&(*session).0, typed.to_owned()?) };
        sent = session.send_ahead(&typed)?;
        Ok(DhStatus::DhOk)
    });
    sent
}

/// Cancels what was sent ahead, if it has not been asked for. Never fails.
///
/// # Safety
/// `session` is live.
pub(super) unsafe extern "C" fn session_drop_ahead(session: *const DhSession) {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        unsafe { &(*session).0 }.drop_ahead();
        Ok(DhStatus::DhOk)
    });
}

/// Begins the server's part of the transaction now.
///
/// # Safety
/// `session` is live; `error` is a place for one buffer.
pub(super) unsafe extern "C" fn session_begin(
    session: *const DhSession,
    interrupt: DhInterrupt,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        unsafe { &(*session).0 }.begin(&interrupt)?;
        Ok(DhStatus::DhOk)
    })
}

/// Names and values, copied.
///
/// # Safety
/// `options` points at `options_len` of them, whose texts are valid; it may be null if there are none.
unsafe fn options(options: *const DhOption, options_len: usize) -> Result<Vec<(String, String)>> {
    if options_len == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the caller's promise.
    let options = unsafe { std::slice::from_raw_parts(options, options_len) };
    // SAFETY: the caller's promise.
    options
        .iter()
        .map(|option| unsafe { Ok((option.name.to_owned()?, option.value.to_owned()?)) })
        .collect()
}

/// Commits the server's part of the transaction, if it has one.
///
/// # Safety
/// `session` is live; `error` is a place for one buffer.
pub(super) unsafe extern "C" fn session_commit(
    session: *const DhSession,
    interrupt: DhInterrupt,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        unsafe { &(*session).0 }.commit(&interrupt)?;
        Ok(DhStatus::DhOk)
    })
}

/// Rolls the server's part of the transaction back, if it has one. Never fails.
///
/// # Safety
/// `session` is live.
pub(super) unsafe extern "C" fn session_rollback(session: *const DhSession) {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        unsafe { &(*session).0 }.rollback();
        Ok(DhStatus::DhOk)
    });
}

/// Drops a temporary table of the session, if it can. Never fails; waits at most as long as COMMIT does.
///
/// # Safety
/// `session` is live, `name` is valid for the call.
pub(super) unsafe extern "C" fn session_drop_temporary(session: *const DhSession, name: DhText) {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let (session, name) = unsafe { (&(*session).0, name.to_owned()?) };
        session.drop_temporary(&name);
        Ok(DhStatus::DhOk)
    });
}

/// Loads a DuckDB extension on the server.
///
/// # Safety
/// `session` is live, `name` is valid for the call, `error` is a place for one buffer.
pub(super) unsafe extern "C" fn load_extension(
    session: *const DhSession,
    name: DhText,
    interrupt: DhInterrupt,
    error: *mut DhBuffer,
) -> DhStatus {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (session, name) = unsafe { (&(*session).0, name.to_owned()?) };
        session.load_extension(&interrupt, &name)?;
        Ok(DhStatus::DhOk)
    })
}
