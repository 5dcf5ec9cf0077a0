//! What can be asked, told once: the router is made of these tables, and so is the document.
//!
//! **Invariant:** nothing is served that does not stand here, so that router and document cannot
//! disagree; a handler reads its query by the parameters that its operation tells.

use axum::routing::MethodRouter;

use super::HttpState;
use super::tokens::Scope;

/// What the router serves under one path, to those who have one scope.
pub(super) struct Route {
    /// The path as the router matches it.
    pub(super) path: &'static str,
    /// Who is let in.
    pub(super) access: Access,
    /// What answers.
    pub(super) methods: MethodRouter<HttpState>,
    /// What the document tells of it: one for each method, or for each thing that is behind a
    /// path which the router cannot tell apart.
    pub(super) operations: &'static [Operation],
}

/// Who is let in to a route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Anybody, without a token.
    Anyone,
    /// Who has a token with this scope; the route takes a `Caller`, and shows one whose token is
    /// for one account nothing of others.
    Own(Scope),
    /// Who has a token with this scope, and for all accounts: so much is shown or changed at once.
    All(Scope),
}

impl Access {
    /// What the token must be good for.
    pub(super) const fn scope(self) -> Option<Scope> {
        match self {
            Self::Anyone => None,
            Self::Own(scope) | Self::All(scope) => Some(scope),
        }
    }
}

/// One thing that can be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// Its name in generated clients.
    pub(super) id: &'static str,
    /// The method, in lower case.
    pub(super) method: &'static str,
    /// The path with its parameters in braces.
    pub(super) path: &'static str,
    /// The heading under which it stands.
    pub(super) group: &'static str,
    /// What it does, in one sentence.
    pub(super) about: &'static str,
    /// What may stand in the query; `access_token` may everywhere.
    pub(super) query: &'static [Parameter],
    /// Header fields that it looks at.
    pub(super) headers: &'static [Parameter],
    /// The forms of the body that it takes; none where it looks at no body.
    pub(super) takes: &'static [Content],
    /// What it answers when all is well, and refusals of its own; all refusals have one shape.
    pub(super) answers: &'static [Answer],
}

/// A parameter of a query or a header field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: &'static str,
    /// What it must look like.
    pub(super) shape: Shape,
    /// Whether it must be there.
    pub(super) is_needed: bool,
    /// What it means.
    pub(super) about: &'static str,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// What it means.
    pub(super) about: &'static str,
    /// The body, in one of these forms.
    pub(super) forms: &'static [Content],
}

/// A body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    /// Its media type.
    pub(super) kind: &'static str,
    /// Its shape.
    pub(super) shape: Shape,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// A text that matches a regular expression.
    Pattern(&'static str),
    /// A moment: RFC 3339, in UTC.
    Time,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of the words that a list in the code has.
    Words(fn() -> Vec<&'static str>),
    /// `true` or `false`.
    Flag,
    /// A whole number that is not negative.
    Number,
    /// A whole number from the least to the most, and what it is unless it is given.
    Between(usize, usize, Option<usize>),
    /// Octets.
    Octets,
    /// Anything.
    Any,
    /// A schema by its name.
    Of(&'static str),
    /// One of several schemas, by their names.
    AnyOf(&'static [&'static str]),
    /// Values of one shape.
    List(&'static Shape),
    /// Values of one shape by names that are not known before.
    Map(&'static Shape),
}

/// An object of the document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) about: &'static str,
    /// What it has.
    pub(super) fields: &'static [Field],
}

/// A field of an object; what is not known is absent, never null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Its name.
    pub(super) name: &'static str,
    /// What it looks like.
    pub(super) shape: Shape,
    /// Whether it is always there.
    pub(super) is_always: bool,
    /// What it means.
    pub(super) about: &'static str,
}

impl Operation {
    /// A GET without anything, for the rest to be filled in.
    pub(super) const GET: Self = Self {
        id: "",
        method: "get",
        path: "",
        group: "",
        about: "",
        query: &[],
        headers: &[],
        takes: &[],
        answers: &[],
    };

    /// The same for a POST.
    pub(super) const POST: Self = Self { method: "post", ..Self::GET };

    /// The same for a DELETE.
    pub(super) const DELETE: Self = Self { method: "delete", ..Self::GET };
}

impl Parameter {
    /// A parameter that need not be there.
    pub(super) const fn new(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, is_needed: false, about }
    }

    /// A parameter that must be there.
    pub(super) const fn needed(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, is_needed: true, about }
    }
}

impl AsRef<str> for Parameter {
    fn as_ref(&self) -> &str {
        self.name
    }
}

impl Answer {
    /// 200 in one of these forms.
    pub(super) const fn ok(about: &'static str, forms: &'static [Content]) -> Self {
        Self { status: 200, about, forms }
    }

    /// A refusal that only some operations know.
    pub(super) const fn refusal(status: u16, about: &'static str) -> Self {
        const ERROR: &[Content] = &[Content::json("Error")];
        Self { status, about, forms: ERROR }
    }
}

impl Content {
    /// JSON that has the schema of this name.
    pub(super) const fn json(schema: &'static str) -> Self {
        Self { kind: "application/json", shape: Shape::Of(schema) }
    }

    /// A body that is no JSON.
    pub(super) const fn of(kind: &'static str, shape: Shape) -> Self {
        Self { kind, shape }
    }
}
