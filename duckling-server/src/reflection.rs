//! What gRPC's server reflection tells of Arrow Flight, for tools such as grpcurl. No `.proto` file is needed to build
//! the server, so the messages are described here: <https://arrow.apache.org/docs/format/Flight.html>.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};

const PACKAGE: &str = "arrow.flight.protocol";
const TIMESTAMP_FILE: &str = "google/protobuf/timestamp.proto";
const TIMESTAMP: &str = ".google.protobuf.Timestamp";

/// A message's name, and its fields: name, number, type. The type is one of proto3's or a message's name, with `*` behind
/// it for a list and `?` for one that may be absent.
type Message = (&'static str, &'static [(&'static str, i32, &'static str)]);

const MESSAGES: &[Message] = &[
    (
        "HandshakeRequest",
        &[("protocol_version", 1, "uint64"), ("payload", 2, "bytes")],
    ),
    (
        "HandshakeResponse",
        &[("protocol_version", 1, "uint64"), ("payload", 2, "bytes")],
    ),
    ("BasicAuth", &[("username", 2, "string"), ("password", 3, "string")]),
    ("Empty", &[]),
    ("ActionType", &[("type", 1, "string"), ("description", 2, "string")]),
    ("Criteria", &[("expression", 1, "bytes")]),
    ("Action", &[("type", 1, "string"), ("body", 2, "bytes")]),
    ("Result", &[("body", 1, "bytes")]),
    ("SchemaResult", &[("schema", 1, "bytes")]),
    (
        "FlightDescriptor",
        &[
            ("type", 1, ".arrow.flight.protocol.FlightDescriptor.DescriptorType"),
            ("cmd", 2, "bytes"),
            ("path", 3, "string*"),
        ],
    ),
    (
        "FlightInfo",
        &[
            ("schema", 1, "bytes"),
            ("flight_descriptor", 2, "FlightDescriptor"),
            ("endpoint", 3, "FlightEndpoint*"),
            ("total_records", 4, "int64"),
            ("total_bytes", 5, "int64"),
            ("ordered", 6, "bool"),
            ("app_metadata", 7, "bytes"),
        ],
    ),
    (
        "PollInfo",
        &[
            ("info", 1, "FlightInfo"),
            ("flight_descriptor", 2, "FlightDescriptor"),
            ("progress", 3, "double?"),
            ("expiration_time", 4, TIMESTAMP),
        ],
    ),
    ("Ticket", &[("ticket", 1, "bytes")]),
    ("Location", &[("uri", 1, "string")]),
    (
        "FlightEndpoint",
        &[
            ("ticket", 1, "Ticket"),
            ("location", 2, "Location*"),
            ("expiration_time", 3, TIMESTAMP),
            ("app_metadata", 4, "bytes"),
        ],
    ),
    (
        "FlightData",
        &[
            ("flight_descriptor", 1, "FlightDescriptor"),
            ("data_header", 2, "bytes"),
            ("app_metadata", 3, "bytes"),
            ("data_body", 1000, "bytes"),
        ],
    ),
    ("PutResult", &[("app_metadata", 1, "bytes")]),
];

/// Name, request and response of each method; `*` behind one that is a stream.
const METHODS: &[(&str, &str, &str)] = &[
    ("Handshake", "HandshakeRequest*", "HandshakeResponse*"),
    ("ListFlights", "Criteria", "FlightInfo*"),
    ("GetFlightInfo", "FlightDescriptor", "FlightInfo"),
    ("PollFlightInfo", "FlightDescriptor", "PollInfo"),
    ("GetSchema", "FlightDescriptor", "SchemaResult"),
    ("DoGet", "Ticket", "FlightData*"),
    ("DoPut", "FlightData*", "PutResult*"),
    ("DoExchange", "FlightData*", "FlightData*"),
    ("DoAction", "Action", "Result*"),
    ("ListActions", "Empty", "ActionType*"),
];

/// The service, and all that it refers to.
pub fn flight() -> FileDescriptorSet {
    let mut messages: Vec<_> = MESSAGES.iter().map(message).collect();
    if let Some(descriptor) = messages.iter_mut().find(|message| message.name() == "FlightDescriptor") {
        descriptor.enum_type.push(descriptor_type());
    }
    let flight = FileDescriptorProto {
        name: Some("Flight.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        dependency: vec![TIMESTAMP_FILE.to_owned()],
        message_type: messages,
        service: vec![ServiceDescriptorProto {
            name: Some("FlightService".to_owned()),
            method: METHODS.iter().map(method).collect(),
            options: None,
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    let timestamp = FileDescriptorProto {
        name: Some(TIMESTAMP_FILE.to_owned()),
        package: Some("google.protobuf".to_owned()),
        message_type: vec![message(&(
            "Timestamp",
            &[("seconds", 1, "int64"), ("nanos", 2, "int32")],
        ))],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet {
        file: vec![timestamp, flight],
    }
}

fn message((name, fields): &Message) -> DescriptorProto {
    let fields: Vec<_> = fields.iter().map(field).collect();
    // An optional field is the only one of a group.
    let optional = fields.iter().filter(|field| field.proto3_optional());
    let oneof_decl = optional
        .map(|field| OneofDescriptorProto {
            name: Some(format!("_{}", field.name())),
            options: None,
        })
        .collect();
    DescriptorProto {
        name: Some((*name).to_owned()),
        oneof_decl,
        field: fields,
        ..DescriptorProto::default()
    }
}

fn field((name, number, text): &(&str, i32, &str)) -> FieldDescriptorProto {
    let (base, mark) = match text.strip_suffix(['*', '?']) {
        Some(base) => (base, text.chars().last()),
        None => (*text, None),
    };
    let (kind, type_name) = match base {
        "bytes" => (Type::Bytes, None),
        "string" => (Type::String, None),
        "bool" => (Type::Bool, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "uint64" => (Type::Uint64, None),
        "double" => (Type::Double, None),
        base if base.ends_with("DescriptorType") => (Type::Enum, Some(base.to_owned())),
        base => (Type::Message, Some(qualified(base))),
    };
    let label = if mark == Some('*') {
        Label::Repeated
    } else {
        Label::Optional
    };
    let optional = mark == Some('?');
    FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(*number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name,
        proto3_optional: optional.then_some(true),
        oneof_index: optional.then_some(0),
        ..FieldDescriptorProto::default()
    }
}

fn qualified(name: &str) -> String {
    if name.starts_with('.') {
        name.to_owned()
    } else {
        format!(".{PACKAGE}.{name}")
    }
}

fn descriptor_type() -> EnumDescriptorProto {
    let values = ["UNKNOWN", "PATH", "CMD"].into_iter().zip(0..);
    EnumDescriptorProto {
        name: Some("DescriptorType".to_owned()),
        value: values
            .map(|(name, number)| EnumValueDescriptorProto {
                name: Some(name.to_owned()),
                number: Some(number),
                options: None,
            })
            .collect(),
        ..EnumDescriptorProto::default()
    }
}

fn method((name, request, response): &(&str, &str, &str)) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some((*name).to_owned()),
        input_type: Some(qualified(request.trim_end_matches('*'))),
        output_type: Some(qualified(response.trim_end_matches('*'))),
        client_streaming: Some(request.ends_with('*')),
        server_streaming: Some(response.ends_with('*')),
        options: None,
    }
}
