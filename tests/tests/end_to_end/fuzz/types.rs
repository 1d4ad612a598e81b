//! Random types and values, as SQL.

use fastrand::Rng;

use super::gaps::{self, Feature};

/// What the generator knows of a column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Known to DuckDB only: the type of some expression.
    Unknown,
    /// A type without parts, by name.
    Scalar(&'static str),
    /// Width and scale.
    Decimal(u32, u32),
    Enum(Vec<&'static str>),
    List(Box<Type>),
    Array(Box<Type>, usize),
    Struct(Vec<(&'static str, Type)>),
    Map(Box<Type>, Box<Type>),
    Union(Vec<(&'static str, Type)>),
    /// A type that was created under this name.
    Named(String, Box<Type>),
}

pub const INTEGERS: &[&str] = &[
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
];

const SCALARS: &[&str] = &[
    "BOOLEAN",
    "FLOAT",
    "DOUBLE",
    "VARCHAR",
    "BLOB",
    "BIT",
    "UUID",
    "DATE",
    "TIME",
    "TIME_NS",
    "TIMETZ",
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMPTZ",
    "TIMESTAMPTZ_NS",
    "INTERVAL",
    "JSON",
    "VARIANT",
    "BIGNUM",
    "GEOMETRY",
];

const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "b",
    "abc",
    "ABC",
    "NULL",
    "größe",
    "日本語",
    "🦆",
    "it''s",
    "a\"b",
    "back\\slash",
    "100%_",
    "line\nbreak",
    "tab\t",
    "e\u{301}",
    "-- no comment",
    "$1 ? :x",
    "0",
    "2020-02-29",
];

const FIELDS: &[&str] = &["a", "b", "order", "größe", "with space", "A B"];

impl Type {
    /// A random type with at most `depth` levels of nesting.
    pub fn random(rng: &mut Rng, depth: u32) -> Self {
        match rng.u32(0..if depth > 0 { 20 } else { 14 }) {
            0..4 => Self::Scalar(INTEGERS[rng.usize(..INTEGERS.len())]),
            4..6 => Self::Scalar("VARCHAR"),
            6..12 => Self::Scalar(SCALARS[rng.usize(..SCALARS.len())]),
            12 => {
                let width = rng.u32(1..=38);
                Self::Decimal(width, rng.u32(0..=width))
            }
            13 => Self::Enum(vec!["sad", "ok", "größe", ""][..rng.usize(1..=4)].to_vec()),
            14 | 15 => Self::List(Box::new(Self::random(rng, depth - 1))),
            16 => {
                let element = match gaps::has(Feature::ArrayOfText) {
                    true => Self::random(rng, depth - 1),
                    false => Self::of_fixed_length(rng),
                };
                Self::Array(Box::new(element), rng.usize(1..4))
            }
            17 => Self::Struct(Self::members(rng, depth - 1)),
            18 => Self::Map(
                Box::new(Self::Scalar(["INTEGER", "VARCHAR", "DATE"][rng.usize(..3)])),
                Box::new(Self::random(rng, depth - 1)),
            ),
            _ if gaps::has(Feature::UnionOfText) => Self::Union(Self::members(rng, depth - 1)),
            _ => {
                let mut members = Self::members(rng, 0);
                for (_, member) in &mut members {
                    if !matches!(member, Self::Enum(_) | Self::Decimal(..)) {
                        *member = Self::of_fixed_length(rng);
                    }
                }
                Self::Union(members)
            }
        }
    }

    fn of_fixed_length(rng: &mut Rng) -> Self {
        Self::Scalar(["BOOLEAN", "INTEGER", "HUGEINT", "DATE", "TIMETZ", "UUID"][rng.usize(..6)])
    }

    fn members(rng: &mut Rng, depth: u32) -> Vec<(&'static str, Self)> {
        let first = rng.usize(..3);
        (0..rng.usize(1..=3))
            .map(|index| (FIELDS[first + index], Self::random(rng, depth)))
            .collect()
    }

    /// Its name in SQL.
    pub fn sql(&self) -> String {
        let members = |members: &[(&str, Self)]| {
            let members: Vec<_> = members
                .iter()
                .map(|(name, member)| format!("\"{name}\" {}", member.sql()))
                .collect();
            members.join(", ")
        };
        match self {
            Self::Unknown => "VARCHAR".to_owned(),
            Self::Scalar(name) => (*name).to_owned(),
            Self::Decimal(width, scale) => format!("DECIMAL({width},{scale})"),
            Self::Enum(values) => format!("ENUM('{}')", values.join("', '")),
            Self::List(element) => format!("{}[]", element.sql()),
            Self::Array(element, size) => format!("{}[{size}]", element.sql()),
            Self::Struct(fields) => format!("STRUCT({})", members(fields)),
            Self::Map(key, value) => format!("MAP({}, {})", key.sql(), value.sql()),
            Self::Union(tags) => format!("UNION({})", members(tags)),
            Self::Named(name, _) => name.clone(),
        }
    }

    /// An ARRAY, or something with one in it; or it is not known.
    pub fn may_have_array(&self) -> bool {
        self.may_have(&|data_type| matches!(data_type, Self::Array(..)))
    }

    /// A STRUCT, or something with one in it; or it is not known.
    pub fn may_have_struct(&self) -> bool {
        self.may_have(&|data_type| matches!(data_type, Self::Struct(_)))
    }

    fn may_have(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::Unknown => true,
                Self::Scalar(_) | Self::Decimal(..) | Self::Enum(_) => false,
                Self::List(element) | Self::Array(element, _) => element.may_have(is),
                Self::Map(key, value) => key.may_have(is) || value.may_have(is),
                Self::Struct(members) | Self::Union(members) => members.iter().any(|(_, member)| member.may_have(is)),
                Self::Named(_, inner) => inner.may_have(is),
            }
    }

    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Scalar(name) if INTEGERS.contains(name))
    }

    pub fn is(&self, name: &str) -> bool {
        *self
            == Self::Scalar(match name {
                "VARCHAR" => "VARCHAR",
                "BOOLEAN" => "BOOLEAN",
                "DATE" => "DATE",
                "TIMESTAMP" => "TIMESTAMP",
                _ => return false,
            })
    }

    /// Values of it add up to the same in any order.
    pub fn is_exact_number(&self) -> bool {
        self.is_integer() || matches!(self, Self::Decimal(..))
    }

    /// Good for a key: values are easily compared, and equal ones look the same.
    pub fn is_key(&self) -> bool {
        self.is_integer() || self.is("VARCHAR") || self.is("DATE") || matches!(self, Self::Enum(_))
    }

    /// A herd can divide rows by it.
    pub fn is_hashed(&self) -> bool {
        const ALSO: &[&str] = &[
            "FLOAT",
            "DOUBLE",
            "BOOLEAN",
            "BLOB",
            "UUID",
            "TIME",
            "TIMESTAMP",
            "TIMESTAMP_NS",
        ];
        self.is_key() || matches!(self, Self::Decimal(..)) || matches!(self, Self::Scalar(name) if ALSO.contains(name))
    }

    /// A random value, as an expression of this type; sometimes NULL.
    pub fn value(&self, rng: &mut Rng) -> String {
        if rng.u32(..8) == 0 {
            return "NULL".to_owned();
        }
        self.not_null(rng)
    }

    /// A random value other than NULL (inside it there may be some).
    pub fn not_null(&self, rng: &mut Rng) -> String {
        let values = |rng: &mut Rng, element: &Self, count: usize| {
            let values: Vec<_> = (0..count).map(|_| element.value(rng)).collect();
            values.join(", ")
        };
        match self {
            Self::Unknown => ["NULL", "'1'", "1"][rng.usize(..3)].to_owned(),
            Self::Scalar(name) => scalar(name, rng),
            Self::Decimal(width, scale) => decimal(*width, *scale, rng),
            Self::Enum(values) => format!("'{}'::{}", values[rng.usize(..values.len())], self.sql()),
            Self::List(element) => {
                let count = [0, 1, 2, 3, 12][rng.usize(..5)];
                format!("[{}]::{}", values(rng, element, count), self.sql())
            }
            Self::Array(element, size) => format!("[{}]::{}", values(rng, element, *size), self.sql()),
            Self::Struct(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, field)| format!("'{name}': {}", field.value(rng)))
                    .collect();
                format!("{{{}}}::{}", fields.join(", "), self.sql())
            }
            Self::Map(key, value) => {
                let mut keys: Vec<_> = (0..rng.usize(..4)).map(|_| key.not_null(rng)).collect();
                keys.sort();
                keys.dedup();
                let entries: Vec<_> = keys.iter().map(|key| format!("{key}: {}", value.value(rng))).collect();
                format!("MAP {{{}}}::{}", entries.join(", "), self.sql())
            }
            Self::Union(tags) => {
                let (name, tag) = &tags[rng.usize(..tags.len())];
                format!("union_value(\"{name}\" := {})::{}", tag.value(rng), self.sql())
            }
            Self::Named(_, inner) => inner.not_null(rng),
        }
    }
}

fn pick(rng: &mut Rng, values: &[&str]) -> String {
    values[rng.usize(..values.len())].to_owned()
}

fn integer(name: &str, rng: &mut Rng) -> String {
    if rng.u32(..4) > 0 {
        // Small ones meet each other in keys and joins.
        let small = rng.i32(-2..8);
        return if name.starts_with('U') { small.abs() } else { small }.to_string();
    }
    let (lowest, highest) = match name {
        "TINYINT" => ("-128", "127"),
        "SMALLINT" => ("-32768", "32767"),
        "INTEGER" => ("-2147483648", "2147483647"),
        "BIGINT" => ("-9223372036854775808", "9223372036854775807"),
        "HUGEINT" => (
            "-170141183460469231731687303715884105728",
            "170141183460469231731687303715884105727",
        ),
        "UTINYINT" => ("0", "255"),
        "USMALLINT" => ("0", "65535"),
        "UINTEGER" => ("0", "4294967295"),
        "UBIGINT" => ("0", "18446744073709551615"),
        _ => ("0", "340282366920938463463374607431768211455"),
    };
    let value = if rng.bool() { lowest } else { highest };
    if !gaps::has(Feature::IntegerCasts) {
        match name {
            "INTEGER" => return value.to_owned(),
            "UHUGEINT" => return "7".to_owned(),
            _ => {}
        }
    }
    format!("'{value}'::{name}")
}

fn decimal(width: u32, scale: u32, rng: &mut Rng) -> String {
    let digits = match rng.u32(..4) {
        0 => "9".repeat(width as usize),
        1 => rng.u32(0..10).to_string(),
        _ => (0..rng.u32(1..=width)).map(|_| rng.digit(10)).collect(),
    };
    let digits = format!("{digits:0>length$}", length = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let whole = if width == scale { "" } else { whole };
    let sign = if rng.bool() && digits.bytes().any(|digit| digit != b'0') {
        "-"
    } else {
        ""
    };
    format!("'{sign}{whole}.{fraction}'::DECIMAL({width},{scale})")
}

/// Values that are equal look the same: no -0.0, no intervals of 30 days.
fn scalar(name: &str, rng: &mut Rng) -> String {
    let values: &[&str] = match name {
        "BOOLEAN" => return pick(rng, &["true", "false"]),
        "VARCHAR" if rng.u32(..30) == 0 => return "repeat('x🦆', 3000)".to_owned(),
        "VARCHAR" if rng.u32(..30) == 0 => return "('a' || chr(0) || 'b')".to_owned(),
        "VARCHAR" => return format!("'{}'", pick(rng, TEXTS)),
        "BLOB" => {
            let bytes: String = (0..rng.usize(..6)).map(|_| format!("\\x{:02X}", rng.u8(..))).collect();
            return format!("'{bytes}'::BLOB");
        }
        "BIT" => {
            let bits: String = (0..rng.usize(1..20)).map(|_| rng.digit(2)).collect();
            return format!("'{bits}'::BIT");
        }
        "UUID" if rng.bool() => {
            let digits = format!("{:032x}", rng.u128(..));
            return format!("'{digits}'::UUID");
        }
        "UUID" => &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "80000000-0000-0000-0000-000000000000",
        ],
        "FLOAT" => &[
            "0",
            "1.5",
            "-2.25",
            "nan",
            "inf",
            "-inf",
            "3.4028235e38",
            "1e-45",
            "0.1",
        ],
        "DOUBLE" => &[
            "0",
            "1.5",
            "-2.25",
            "nan",
            "inf",
            "-inf",
            "1.7976931348623157e308",
            "5e-324",
            "0.1",
        ],
        "DATE" => &[
            "2020-02-29",
            "1970-01-01",
            "2020-03-01",
            "infinity",
            "-infinity",
            "5881580-07-10",
            "5877642-06-25 (BC)",
            "0001-01-01",
        ],
        "TIME" => &["00:00:00", "23:59:59.999999", "24:00:00", "12:34:56.000001"],
        "TIME_NS" => &["00:00:00", "23:59:59.999999999", "24:00:00", "12:34:56.000000001"],
        "TIMETZ" => &[
            "00:00:00+15:59:59",
            "23:59:59.999999-15:59:59",
            "12:00:00+00",
            "12:00:00.000001-07:30",
        ],
        "TIMESTAMP" => &[
            "2020-02-29 12:34:56.789012",
            "1970-01-01 00:00:00",
            "infinity",
            "-infinity",
            "294247-01-10 04:00:54.775806",
            "290309-12-22 (BC) 00:00:00",
        ],
        "TIMESTAMP_S" => &[
            "2020-02-29 12:34:56",
            "1969-12-31 23:59:59",
            "infinity",
            "-infinity",
            "290000-01-01 00:00:00",
        ],
        "TIMESTAMP_MS" => &[
            "2020-02-29 12:34:56.789",
            "1969-12-31 23:59:59.999",
            "infinity",
            "-infinity",
        ],
        "TIMESTAMP_NS" => &[
            "2020-02-29 12:34:56.789012345",
            "1677-09-22 00:00:00",
            "2262-04-11 23:47:16.854775806",
            "infinity",
            "-infinity",
        ],
        "TIMESTAMPTZ" => &[
            "2020-02-29 12:34:56.789012+00",
            "2020-02-29 12:34:56+05:30",
            "infinity",
            "-infinity",
            "294247-01-10 04:00:54.775806+00",
            "290309-12-22 (BC) 00:00:00+00",
        ],
        "TIMESTAMPTZ_NS" => &[
            "2020-02-29 12:34:56.789012345+00",
            "1970-01-01 00:00:00+01",
            "infinity",
            "-infinity",
        ],
        "INTERVAL" => &[
            "0 seconds",
            "1 year 2 months 3 days 04:05:06.789",
            "-1 month",
            "2 days",
            "1 microsecond",
            "-00:00:01",
            "83333333 years",
            "-100000000 hours",
        ],
        "JSON" => &[
            "{\"a\": [1, null, \"x\"], \"größe\": {\"b\": 1.5}}",
            "null",
            "[]",
            "\"text\"",
            "1e10",
            "  {\"a\":1}",
        ],
        "VARIANT" => {
            return pick(
                rng,
                &[
                    "42::VARIANT",
                    "'text'::VARIANT",
                    "{'a': [1, NULL], 'b': 'größe'}::VARIANT",
                    "[1, 2, 3]::VARIANT",
                    "DATE '2020-02-29'::VARIANT",
                    "1.5::DECIMAL(10,3)::VARIANT",
                    "'\\x00\\xFF'::BLOB::VARIANT",
                    "true::VARIANT",
                    "''::VARIANT",
                    "340282366920938463463374607431768211455::UHUGEINT::VARIANT",
                    "200::UTINYINT::VARIANT",
                    "INTERVAL '3 months'::VARIANT",
                    "'0101'::BIT::VARIANT",
                    "{'k': 1::HUGEINT}::VARIANT",
                ],
            );
        }
        "BIGNUM" => &[
            "0",
            "1",
            "-1",
            "123456789012345678901234567890123456789012345678901234567890",
            "-98765432109876543210987654321098765432109876543210",
        ],
        "GEOMETRY" => &[
            "POINT (1 2)",
            "POINT EMPTY",
            "LINESTRING (0 0, 1 1, 2 0.5)",
            "POLYGON ((0 0, 1 0, 1 1, 0 0))",
            "MULTIPOINT (1 2, 3 4)",
            "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
            "POINT Z (1 2 3)",
        ],
        _ => return integer(name, rng),
    };
    format!("'{}'::{name}", pick(rng, values))
}
