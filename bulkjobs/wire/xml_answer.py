"""An XML answer as plain names and values. Only `answer` uses this.

The bytes come from outside, so: no entity is resolved, nothing is fetched, no DOCTYPE is taken, and
libxml2's own limits (depth 256, 10 MB of text) stay on. What these options keep out is listed in the tests.
"""

from __future__ import annotations

from lxml import etree

__all__ = ["read_xml"]


def read_xml(body: bytes) -> dict[str, object]:
    """Reads the children of the root, whatever the root and the namespaces are called.

    An element without child elements gives its text (empty if it has none), another one a dictionary. A
    name that comes again with another value gives the list of them, so that whoever asks for that name
    sees that there is more than one answer.

    Raises:
        ValueError: it is not well-formed XML, it has a DOCTYPE, or the root has no child elements.
    """
    # A parser for each document: a shared one keeps the log of the documents before it.
    parser = etree.XMLParser(  # type: ignore[call-arg] # the stubs do not know `decompress`
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        recover=False,
        decompress=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except etree.LxmlError as exc:
        raise ValueError(str(exc)) from exc
    # Not only an attack: with entities left alone `<jobId>&x;</jobId>` would read as an empty id.
    if root.getroottree().docinfo.doctype:  # type: ignore[union-attr] # missing in the stubs
        raise ValueError("it has a DOCTYPE, which no answer needs")
    content = _content(root)
    if isinstance(content, str):
        raise ValueError("its root has no child elements")  # noqa: TRY004 - as above: about bytes
    return content


def _content(element: etree._Element) -> str | dict[str, object]:
    # Recursion is bounded by libxml2's depth limit.
    if not len(element):
        return element.text or ""
    found: dict[str, object] = {}
    for child in element:
        name = child.tag.rpartition("}")[2]
        value = _content(child)
        before = found.setdefault(name, value)
        if before != value:
            found[name] = [*before, value] if isinstance(before, list) else [before, value]
    return found
