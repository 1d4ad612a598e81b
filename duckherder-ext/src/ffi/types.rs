//! What crosses the boundary.

use std::ffi::c_void;

use crate::error::{Result, invalid_input};
use crate::runtime::InterruptCheck;

/// How a call went.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhStatus {
    /// Well; outputs are set.
    DhOk = 0,
    /// There is nothing (more); outputs are not set.
    DhEnd = 1,
    /// Badly; `error` is set.
    DhFailed = 2,
    /// Not yet: the call would have to wait.
    DhPending = 3,
}

/// UTF-8 text that somebody else owns. `ptr` may be null if `len` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DhText {
    /// First byte.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
}

impl DhText {
    /// A view of `text`, valid while that is.
    pub fn of(text: &str) -> Self {
        Self {
            ptr: text.as_ptr(),
            len: text.len(),
        }
    }

    /// The text, copied.
    ///
    /// # Safety
    /// `ptr` points at `len` bytes that nobody changes during the call.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub unsafe fn to_owned(self) -> Result<String> {
        if self.len == 0 {
            return Ok(String::new());
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(self.ptr, self.len) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(invalid_input("text that is not valid UTF-8")),
        }
    }
}

/// Text that the receiver owns and frees with `buffer_free`.
#[repr(C)]
#[derive(Debug)]
pub struct DhBuffer {
    /// First byte; null if there is no text.
    pub ptr: *mut u8,
    /// Bytes.
    pub len: usize,
}

impl DhBuffer {
    /// A buffer with `text`.
    pub fn new(text: String) -> Self {
        let bytes = Box::leak(text.into_bytes().into_boxed_slice());
        Self {
            ptr: bytes.as_mut_ptr(),
            len: bytes.len(),
        }
    }
}

/// Frees a buffer. Null is fine; twice is not.
///
/// # Safety
/// The buffer came from this library and is not used again.
pub(super) unsafe extern "C" fn buffer_free(buffer: DhBuffer) {
    if !buffer.ptr.is_null() {
        // SAFETY: made by `DhBuffer::new` of a boxed slice of exactly this length.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.ptr, buffer.len)) });
    }
}

/// How a waiting call finds out that the user wants it to stop. For the length of that call only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DhInterrupt {
    /// Whether the query was interrupted. Must not throw. Null: never.
    pub check: Option<extern "C" fn(context: *mut c_void) -> bool>,
    /// Its argument.
    pub context: *mut c_void,
}

/// How a scan thread is told that it is worth asking again. Exactly one of the two is called, once, from any thread,
/// possibly after the call it was passed to: unless that call fails or answers anything but `DhPending`, in which case
/// `discard` has been called.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DhWaker {
    /// Wakes, and frees the context. Must not throw.
    pub wake: extern "C" fn(context: *mut c_void),
    /// Frees the context. Must not throw.
    pub discard: extern "C" fn(context: *mut c_void),
    /// Their argument.
    pub context: *mut c_void,
}

/// Owns a waker: wakes once or discards.
pub(super) struct OwnedWaker(Option<DhWaker>);

// SAFETY: the context may be used from any thread, as documented with `DhWaker`.
unsafe impl Send for OwnedWaker {}

impl OwnedWaker {
    pub(super) fn new(waker: DhWaker) -> Self {
        Self(Some(waker))
    }

    pub(super) fn wake(mut self) {
        if let Some(waker) = self.0.take() {
            (waker.wake)(waker.context);
        }
    }
}

impl Drop for OwnedWaker {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            (waker.discard)(waker.context);
        }
    }
}

impl InterruptCheck for DhInterrupt {
    fn is_interrupted(&self) -> bool {
        self.check.is_some_and(|check| check(self.context))
    }
}
