//! The document of everything that can be asked, in OpenAPI 3.1, made of the tables that the
//! router is made of.

mod happened;
mod listing;
pub(super) mod page;
mod schemas;
mod submitting;
mod telling;

use serde_json::{Map, Value, json};

use super::operation::{Answer, Content, Operation, Parameter, Route, Schema, Shape};

/// The document.
pub(super) fn document(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (route, operation) in operations(routes) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(operation.method.to_owned(), told(operation, route));
        }
    }
    let schemas: Map<String, Value> =
        schemas::all().map(|one| (one.name.to_owned(), object(one))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rebound",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "What became of every mail that was submitted, and what bounced.",
            "description": "What is not known is absent, never null. An id in a path is \
                            percent-encoded. Errors have one shape, `Error`.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "tags": groups(routes).into_iter().map(|name| json!({ "name": name })).collect::<Value>(),
        "paths": paths,
        "webhooks": happened::webhooks(),
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `rebound token add`, good for what the operation \
                                    says. Where there is no token yet, loopback needs none.",
                },
                "access_token": { "type": "apiKey", "in": "query", "name": "access_token" },
            },
            "responses": { "Error": {
                "description": "It could not be done",
                "content": { "application/json": { "schema": reference("Error") } },
            } },
            "schemas": schemas,
        },
    })
}

/// Every operation beside its route, in the order of the document.
fn operations(routes: &[Route]) -> impl Iterator<Item = (&Route, &Operation)> {
    routes.iter().flat_map(|route| route.operations.iter().map(move |operation| (route, operation)))
}

/// The headings, each once.
fn groups(routes: &[Route]) -> Vec<&'static str> {
    let mut groups = Vec::new();
    for (_, operation) in operations(routes) {
        if !groups.contains(&operation.group) {
            groups.push(operation.group);
        }
    }
    groups
}

fn told(operation: &Operation, route: &Route) -> Value {
    let in_path = path_parameters(operation.path).map(|name| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": schemas::of_path_parameter(name),
        })
    });
    let in_query = operation.query.iter().map(|one| parameter(one, "query"));
    let in_header = operation.headers.iter().map(|one| parameter(one, "header"));
    let mut told = Map::new();
    let mut put = |key: &str, value: Value| told.insert(key.to_owned(), value);
    put("operationId", json!(operation.id));
    put("tags", json!([operation.group]));
    put("description", json!(operation.about));
    put("parameters", in_path.chain(in_query).chain(in_header).collect());
    if !operation.takes.is_empty() {
        put("requestBody", json!({ "required": true, "content": contents(operation.takes) }));
    }
    put("responses", responses(operation, route));
    put(
        "security",
        match route.access.scope() {
            Some(scope) => {
                json!([{ "bearer": [scope.as_str()] }, { "access_token": [scope.as_str()] }])
            }
            None => json!([]),
        },
    );
    Value::Object(told)
}

fn parameter(parameter: &Parameter, place: &str) -> Value {
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.is_needed,
        "description": parameter.about,
        "schema": schema(parameter.shape),
    })
}

fn responses(operation: &Operation, route: &Route) -> Value {
    let mut responses = Map::new();
    for Answer { status, about, forms } in operation.answers {
        let mut response = json!({ "description": about });
        if let (Value::Object(map), false) = (&mut response, forms.is_empty()) {
            map.insert("content".to_owned(), contents(forms));
        }
        responses.insert(status.to_string(), response);
    }
    let error = json!({ "$ref": "#/components/responses/Error" });
    let has_id = operation.path.contains('{');
    let has_body = !operation.takes.is_empty();
    let expected = [
        ("400", true),
        ("401", route.access.scope().is_some()),
        ("403", route.access.scope().is_some()),
        ("404", has_id),
        ("408", has_body),
        ("413", has_body),
        ("415", has_body),
        ("default", true),
    ];
    for (status, _) in expected.into_iter().filter(|(_, is_expected)| *is_expected) {
        responses.entry(status).or_insert_with(|| error.clone());
    }
    Value::Object(responses)
}

fn contents(forms: &[Content]) -> Value {
    forms
        .iter()
        .map(|form| (form.kind.to_owned(), json!({ "schema": schema(form.shape) })))
        .collect()
}

/// The names in braces of a path.
fn path_parameters(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('{').skip(1).filter_map(|part| part.split('}').next())
}

fn object(of: &Schema) -> Value {
    let needed = of.fields.iter().filter(|field| field.is_always).map(|field| field.name);
    let fields = of.fields.iter().map(|field| {
        let mut shown = schema(field.shape);
        if let Value::Object(map) = &mut shown {
            map.insert("description".to_owned(), json!(field.about));
        }
        (field.name.to_owned(), shown)
    });
    json!({
        "type": "object",
        "description": of.about,
        "required": needed.collect::<Vec<_>>(),
        "properties": fields.collect::<Map<_, _>>(),
    })
}

fn schema(shape: Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Pattern(pattern) => json!({ "type": "string", "pattern": pattern }),
        Shape::Time => json!({ "type": "string", "format": "date-time" }),
        Shape::OneOf(words) => json!({ "type": "string", "enum": words }),
        Shape::Words(words) => json!({ "type": "string", "enum": words() }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Number => json!({ "type": "integer", "format": "int64", "minimum": 0 }),
        Shape::Between(least, most, default) => {
            let mut schema = json!({ "type": "integer", "minimum": least, "maximum": most });
            if let (Value::Object(map), Some(default)) = (&mut schema, default) {
                map.insert("default".to_owned(), json!(default));
            }
            schema
        }
        Shape::Octets => json!({ "type": "string", "format": "binary" }),
        Shape::Of(name) => reference(name),
        Shape::AnyOf(names) => {
            json!({ "anyOf": names.iter().map(|name| reference(name)).collect::<Vec<_>>() })
        }
        Shape::List(of) => json!({ "type": "array", "items": schema(*of) }),
        Shape::Map(of) => json!({ "type": "object", "additionalProperties": schema(*of) }),
        Shape::Any => json!({}),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::routes;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_of_the_router_is_in_the_document() {
        let routes = routes();
        let document = document(&routes);
        for route in &routes {
            assert!(!route.operations.is_empty(), "{} is not told of", route.path);
            for operation in route.operations {
                let told = &document["paths"][operation.path][operation.method];
                assert_eq!(told["operationId"], operation.id, "{}", operation.path);
                let fixed = |path: &str| path.split('{').next().unwrap().to_owned();
                assert!(operation.path.starts_with(&fixed(route.path)), "{}", operation.path);
                assert!(!operation.answers.is_empty(), "{} answers nothing", operation.id);
            }
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let routes = routes();
        let names: Vec<&str> = operations(&routes).map(|(_, operation)| operation.id).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "{names:?}");
        let places: BTreeSet<(&str, &str)> =
            operations(&routes).map(|(_, operation)| (operation.path, operation.method)).collect();
        assert_eq!(names.len(), places.len(), "{places:?}");
    }

    #[test]
    fn every_reference_leads_somewhere_and_no_schema_is_left_over() {
        let document = document(&routes());
        let text = document.to_string();
        let named: BTreeSet<String> = text
            .split("#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let there: BTreeSet<String> = schemas.keys().cloned().collect();
        assert_eq!(named, there);
    }
}
