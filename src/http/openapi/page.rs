//! The document as a page for people: plain HTML, without script and without other hosts.

use serde_json::{Map, Value};

/// What the page looks like.
pub(in crate::http) const STYLE: &str = include_str!("docs.css");

/// The page of a document.
pub(in crate::http) fn html(document: &Value) -> String {
    let mut page = Page(String::new());
    let title =
        format!("{} {}", text(at(document, "/info/title")), text(at(document, "/info/version")));
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.element("title", &title);
    page.raw("<link rel=\"stylesheet\" href=\"/docs.css\">\n</head>\n<body>\n<main>\n");
    page.element("h1", &title);
    page.element("p", text(at(document, "/info/summary")));
    page.element("p", text(at(document, "/info/description")));
    page.raw("<p>The same for programs: <a href=\"/v1/openapi.json\">OpenAPI 3.1</a>.</p>\n");
    page.contents(document);
    for group in list(&document["tags"]) {
        page.group(document, text(&group["name"]));
    }
    page.raw("<h2 id=\"schemas\">Objects</h2>\n");
    for (name, schema) in entries(at(document, "/components/schemas")) {
        page.object(name, schema);
    }
    page.raw("</main>\n</body>\n</html>\n");
    page.0
}

struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.raw("&amp;"),
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '"' => self.raw("&quot;"),
                c => self.0.push(c),
            }
        }
    }

    fn element(&mut self, name: &str, text: &str) {
        self.raw(&format!("<{name}>"));
        self.text(text);
        self.raw(&format!("</{name}>\n"));
    }

    fn contents(&mut self, document: &Value) {
        self.raw("<nav aria-label=\"Operations\">\n<ul>\n");
        for (path, method, operation) in operations(document) {
            self.raw(&format!("<li><a href=\"#{}\"><code>", text(&operation["operationId"])));
            self.text(&format!("{method} {path}"));
            self.raw("</code></a></li>\n");
        }
        self.raw("</ul>\n</nav>\n");
    }

    fn group(&mut self, document: &Value, group: &str) {
        self.element("h2", group);
        let of_group = |operation: &Value| list(&operation["tags"]).iter().any(|tag| tag == group);
        for (path, method, operation) in operations(document) {
            if of_group(operation) {
                self.operation(path, method, operation);
            }
        }
    }

    fn operation(&mut self, path: &str, method: &str, operation: &Value) {
        self.raw(&format!("<h3 id=\"{}\"><code>", text(&operation["operationId"])));
        self.raw(&format!("<span class=\"method\">{method}</span> "));
        self.text(path);
        self.raw("</code></h3>\n");
        self.element("p", text(&operation["description"]));
        let scope = list(&operation["security"]).first().map(|one| text(at(one, "/bearer/0")));
        self.element(
            "p",
            &match scope {
                Some(scope) => format!("Needs a token with the scope {scope}."),
                None => "Needs no token.".to_owned(),
            },
        );
        let parameters = list(&operation["parameters"]);
        if !parameters.is_empty() {
            self.table(&["parameter", "in", "looks like", "means"], |page| {
                for one in parameters {
                    let needed = if one["required"] == true { " (needed)" } else { "" };
                    page.raw("<tr><td><code>");
                    page.text(text(&one["name"]));
                    page.raw("</code></td><td>");
                    page.text(&format!("{}{needed}", text(&one["in"])));
                    page.raw("</td><td>");
                    page.shape(&one["schema"]);
                    page.raw("</td><td>");
                    page.text(text(&one["description"]));
                    page.raw("</td></tr>\n");
                }
            });
        }
        if operation["requestBody"].is_object() {
            self.raw("<p>Takes ");
            self.forms(at(operation, "/requestBody/content"));
            self.raw("</p>\n");
        }
        self.table(&["status", "answer", "as"], |page| {
            let answers = entries(&operation["responses"]);
            for (status, answer) in answers.filter(|(_, answer)| answer["$ref"].is_null()) {
                page.raw(&format!("<tr><td>{status}</td><td>"));
                page.text(text(&answer["description"]));
                page.raw("</td><td>");
                page.forms(&answer["content"]);
                page.raw("</td></tr>\n");
            }
        });
    }

    fn object(&mut self, name: &str, schema: &Value) {
        self.raw(&format!("<h3 id=\"schema-{name}\"><code>{name}</code></h3>\n"));
        self.element("p", text(&schema["description"]));
        let always = list(&schema["required"]);
        self.table(&["field", "looks like", "means"], |page| {
            for (field, shape) in entries(&schema["properties"]) {
                let is_always = always.iter().any(|name| name == field);
                page.raw("<tr><td><code>");
                page.text(field);
                page.raw(if is_always { "</code></td><td>" } else { "?</code></td><td>" });
                page.shape(shape);
                page.raw("</td><td>");
                page.text(text(&shape["description"]));
                page.raw("</td></tr>\n");
            }
        });
    }

    fn table(&mut self, heads: &[&str], rows: impl FnOnce(&mut Self)) {
        self.raw("<div class=\"scroll\"><table>\n<thead><tr>");
        for head in heads {
            self.raw(&format!("<th scope=\"col\">{head}</th>"));
        }
        self.raw("</tr></thead>\n<tbody>\n");
        rows(self);
        self.raw("</tbody>\n</table></div>\n");
    }

    fn forms(&mut self, content: &Value) {
        for (at, (kind, form)) in entries(content).enumerate() {
            self.raw(if at == 0 { "<code>" } else { ", or <code>" });
            self.text(kind);
            self.raw("</code> ");
            self.shape(&form["schema"]);
        }
    }

    /// What a schema allows, in a few words; a name leads to its object.
    fn shape(&mut self, schema: &Value) {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            self.raw(&format!("<a href=\"#schema-{name}\"><code>{name}</code></a>"));
        } else if let Some(forms) = schema["anyOf"].as_array() {
            for (at, form) in forms.iter().enumerate() {
                self.raw(if at == 0 { "" } else { " or " });
                self.shape(form);
            }
        } else if schema["type"] == "array" {
            self.raw("list of ");
            self.shape(&schema["items"]);
        } else if schema["additionalProperties"].is_object() {
            self.raw("by name: ");
            self.shape(&schema["additionalProperties"]);
        } else if let Some(words) = schema["enum"].as_array() {
            let words: Vec<&str> = words.iter().map(text).collect();
            self.text(&words.join(", "));
        } else {
            let mut words = text(&schema["type"]).to_owned();
            if let Some(format) = schema["format"].as_str() {
                words.push_str(&format!(" ({format})"));
            }
            if let (Some(least), Some(most)) =
                (schema["minimum"].as_u64(), schema["maximum"].as_u64())
            {
                words.push_str(&format!(" from {least} to {most}"));
            }
            if let Some(default) = schema["default"].as_u64() {
                words.push_str(&format!(", {default} unless given"));
            }
            self.text(&words);
        }
    }
}

/// Path, method and what is told, in the order of the document.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    entries(&document["paths"]).flat_map(|(path, methods)| {
        entries(methods).map(move |(method, operation)| (path, method, operation))
    })
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi::document;
    use crate::http::routes::routes;

    #[test]
    fn the_page_tells_of_every_operation_and_object_and_asks_nothing_of_others() {
        let document = document(&routes());
        let page = html(&document);
        for (_, _, operation) in operations(&document) {
            let anchor = format!("<h3 id=\"{}\">", text(&operation["operationId"]));
            assert!(page.contains(&anchor), "{anchor}");
        }
        for link in page.split("href=\"#").skip(1) {
            let id = link.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{id}\"")), "#{id} leads nowhere");
        }
        for foreign in ["<script", "http://", "https://", "style=", " on"] {
            let tags = page.split('<').skip(1).map(|tag| tag.split('>').next().unwrap());
            let found: Vec<&str> = tags.filter(|tag| tag.contains(foreign)).collect();
            assert!(found.is_empty() && !page.contains("<script"), "{foreign}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_html_stays_text() {
        let mut page = Page(String::new());
        page.text("<a href=\"x\">&");
        assert_eq!(page.0, "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
