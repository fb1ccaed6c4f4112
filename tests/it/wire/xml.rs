//! Just enough of a tree to rearrange the documents' XML, which holds neither attributes nor mixed
//! content.

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    /// Still escaped.
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// Reads a document; a declaration in front of it is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let start = text.find("?>").map_or(0, |position| position + 2);
        let (element, rest) = Self::read(text[start..].trim());
        assert_eq!(rest, "", "nothing may follow the root");
        element
    }

    fn read(text: &str) -> (Self, &str) {
        let rest = text.strip_prefix('<').expect("an element");
        let (tag, mut rest) = rest.split_once('>').expect("a tag");
        let mut element = Self::leaf(tag.trim_end_matches('/'), "");
        if tag.ends_with('/') {
            return (element, rest.trim_start());
        }
        let end = format!("</{tag}>");
        if let Some((content, after)) = rest.split_once(&end)
            && !content.contains('<')
        {
            content.clone_into(&mut element.text);
            return (element, after.trim_start());
        }
        rest = rest.trim_start();
        while !rest.starts_with(&end) {
            let (child, after) = Self::read(rest);
            element.children.push(child);
            rest = after;
        }
        (element, rest[end.len()..].trim_start())
    }

    pub(super) fn leaf(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            children: Vec::new(),
        }
    }

    /// The document on one line.
    pub(super) fn line(&self) -> String {
        self.write(&mut |_| String::new())
    }

    /// The document with what `between` makes of each element's name in front of the element.
    pub(super) fn write(&self, between: &mut dyn FnMut(&str) -> String) -> String {
        let Self {
            name,
            text,
            children,
        } = self;
        let content: String = children
            .iter()
            .map(|child| between(&child.name) + &child.write(between))
            .collect();
        match (text.as_str(), content.as_str()) {
            ("", "") => format!("<{name}/>"),
            ("", content) => format!("<{name}>{content}</{name}>"),
            (text, _) => format!("<{name}>{text}</{name}>"),
        }
    }

    /// Changes the lists of children, from the leaves to the root.
    pub(super) fn rearranged(&self, change: &dyn Fn(&mut Vec<Element>)) -> Self {
        let mut element = self.clone();
        for child in &mut element.children {
            *child = child.rearranged(change);
        }
        if !element.children.is_empty() {
            change(&mut element.children);
        }
        element
    }

    /// Every element below this one: where it is, by positions, and its path by names.
    pub(super) fn places(&self) -> Vec<(Vec<usize>, String)> {
        let mut places = Vec::new();
        for (position, child) in self.children.iter().enumerate() {
            places.push((vec![position], child.name.clone()));
            for (mut place, path) in child.places() {
                place.insert(0, position);
                places.push((place, format!("{}.{path}", child.name)));
            }
        }
        places
    }

    /// The document with the element at `place` replaced, or without it.
    pub(super) fn replaced(&self, place: &[usize], with: Option<Element>) -> Self {
        let mut element = self.clone();
        let (position, rest) = place.split_first().expect("a place below the root");
        if !rest.is_empty() {
            element.children[*position] = element.children[*position].replaced(rest, with);
        } else if let Some(with) = with {
            element.children[*position] = with;
        } else {
            element.children.remove(*position);
        }
        element
    }
}

#[test]
fn a_document_is_read_and_written_as_it_was() {
    let line = "<R><A/><B>x &amp; y</B><L><E><K>1</K></E><E><K>2</K></E></L></R>";
    let tree = Element::parse(&format!("<?xml version='1.0' ?>\n{line}\n"));
    assert_eq!(tree.line(), line);
    assert_eq!(
        Element::parse("<R>\n\t<A/>\n\t<L>\n\t</L>\n</R>")
            .children
            .len(),
        2
    );
    let paths: Vec<_> = tree.places().into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        paths,
        ["A", "B", "L", "L.E", "L.E.K", "L.E", "L.E.K"],
        "paths"
    );
    assert_eq!(
        tree.replaced(&[2, 0], None).line(),
        "<R><A/><B>x &amp; y</B><L><E><K>2</K></E></L></R>"
    );
}
