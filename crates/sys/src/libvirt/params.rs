//! Typed parameters, as libvirt gives lists of facts.

use std::{collections::BTreeMap, ffi::CStr};

use libc::{c_char, c_int};
use virt_sys as ffi;

/// The value of a typed parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number that may be negative.
    Signed(i64),
    /// A number.
    Unsigned(u64),
    /// A number with a fraction.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
}

impl Value {
    /// As a count, if it is one.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// As a text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Copies `count` parameters from `first`; those of kinds that are not known are left out.
///
/// # Safety
/// `first` points to `count` parameters that libvirt filled in.
pub(super) unsafe fn read(first: ffi::virTypedParameterPtr, count: c_int) -> BTreeMap<String, Value> {
    let count = usize::try_from(count).unwrap_or(0);
    if first.is_null() || count == 0 {
        return BTreeMap::new();
    }
    // SAFETY: as this function demands.
    let all = unsafe { std::slice::from_raw_parts(first, count) };
    all.iter().filter_map(|one| Some((name(&one.field), value(one)?))).collect()
}

/// A field's name, which libvirt ends with a zero unless it is full.
fn name(field: &[c_char]) -> String {
    let octets: Vec<u8> = field.iter().map(|c| c.to_ne_bytes()[0]).take_while(|octet| *octet != 0).collect();
    String::from_utf8_lossy(&octets).into_owned()
}

fn value(one: &ffi::virTypedParameter) -> Option<Value> {
    let value = &one.value;
    let kind = ffi::virTypedParameterType::try_from(one.type_).ok()?;
    // SAFETY: libvirt says in `type_` which member it has set.
    let value = unsafe {
        match kind {
            ffi::VIR_TYPED_PARAM_INT => Value::Signed(value.i.into()),
            ffi::VIR_TYPED_PARAM_UINT => Value::Unsigned(value.ui.into()),
            ffi::VIR_TYPED_PARAM_LLONG => Value::Signed(value.l),
            ffi::VIR_TYPED_PARAM_ULLONG => Value::Unsigned(value.ul),
            ffi::VIR_TYPED_PARAM_DOUBLE => Value::Float(value.d),
            ffi::VIR_TYPED_PARAM_BOOLEAN => Value::Bool(value.b != 0),
            ffi::VIR_TYPED_PARAM_STRING if !value.s.is_null() => {
                Value::Text(CStr::from_ptr(value.s).to_string_lossy().into_owned())
            }
            _ => return None,
        }
    };
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(field: &str, kind: ffi::virTypedParameterType) -> ffi::virTypedParameter {
        let mut name = [0; 80];
        for (to, from) in name.iter_mut().zip(field.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        ffi::virTypedParameter {
            field: name,
            type_: c_int::try_from(kind).unwrap(),
            value: ffi::_virTypedParameterValue { ul: 7 },
        }
    }

    #[test]
    fn reads_what_libvirt_fills_in() {
        let full = "x".repeat(80);
        let mut text = parameter("user.0.name", ffi::VIR_TYPED_PARAM_STRING);
        text.value.s = c"alice".as_ptr().cast_mut();
        let mut nothing = parameter("user.1.name", ffi::VIR_TYPED_PARAM_STRING);
        nothing.value.s = std::ptr::null_mut();
        let mut all =
            [parameter("cpu.time", ffi::VIR_TYPED_PARAM_ULLONG), parameter(&full, 99), text, nothing];
        all[1].type_ = c_int::try_from(ffi::VIR_TYPED_PARAM_INT).unwrap();
        // SAFETY: a whole array of parameters whose values are as their types say.
        let read = unsafe { read(all.as_mut_ptr(), 4) };
        let expected = [
            ("cpu.time".to_owned(), Value::Unsigned(7)),
            ("user.0.name".to_owned(), Value::Text("alice".into())),
            (full, Value::Signed(7)),
        ];
        assert_eq!(read, BTreeMap::from(expected));
    }

    #[test]
    fn of_nothing_reads_nothing() {
        // SAFETY: no parameter is read of none, nor of a null pointer.
        unsafe {
            assert!(super::read(std::ptr::null_mut(), 3).is_empty());
            assert!(super::read(std::ptr::null_mut(), -1).is_empty());
        }
    }
}
