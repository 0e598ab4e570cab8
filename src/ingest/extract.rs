//! The text of a PDF or HTML document. Runs in a process of its own (`spacebot extract`, see
//! `ingest::child`): libraries for foreign formats recurse, panic and take memory as the file wants.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use pdf_extract::{Document, PlainTextOutput, output_doc_page};

use super::take::Format;
use super::{FILE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::thread::contained;

/// Pages of a document; a thicker one is an archive, not a book.
const PAGES_MAX: usize = 10_000;
/// Columns of the page on which HTML is laid out: so many that no line of a text is broken again.
const HTML_COLUMNS: usize = 10000;
/// How far into the file an HTML page may say its encoding (the HTML standard).
const CHARSET_BYTES: usize = 1024;

/// Writes the text of the document in UTF-8. Returns what the operator should know about it.
///
/// # Errors
/// Why it has no text, in words for the operator.
pub fn read_document(
    format: Format,
    input: impl Read,
    output: &mut dyn Write,
) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    input.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match format {
        Format::Text => output.write_all(&bytes).map(|()| None).map_err(|error| error.to_string()),
        Format::Html => html(&bytes, output).map(|()| None),
        Format::Pdf => pdf(&bytes, output),
    }
}

fn html(bytes: &[u8], output: &mut dyn Write) -> Result<(), String> {
    let encoding = html_encoding(bytes);
    let (text, _, _) = encoding.decode(bytes);
    let config = html2text::config::plain_no_decorate()
        .no_table_borders()
        .link_footnotes(false)
        .allow_width_overflow();
    let rendered = contained(|| config.string_from_read(text.as_bytes(), HTML_COLUMNS));
    let rendered = rendered
        .map_err(|panic| format!("the reader of HTML broke: {panic}"))?
        .map_err(|error| format!("the HTML cannot be read: {error}"))?;
    output.write_all(narrow(&rendered).as_bytes()).map_err(|error| error.to_string())
}

/// Cells of a table are filled up with blanks; two are enough between them.
fn narrow(text: &str) -> String {
    let mut narrowed = String::with_capacity(text.len());
    for line in text.lines() {
        let line = line.trim_end();
        let words = line.trim_start();
        narrowed.push_str(&line[..line.len() - words.len()]);
        let mut cells = words.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        narrowed.extend(cells.next());
        cells.for_each(|cell| narrowed.extend(["  ", cell]));
        narrowed.push('\n');
    }
    narrowed
}

/// By its mark, by what it says, by what it is.
fn html_encoding(bytes: &[u8]) -> &'static Encoding {
    if let Some((encoding, _)) = Encoding::for_bom(bytes) {
        return encoding;
    }
    if std::str::from_utf8(bytes).is_ok() {
        return UTF_8;
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(CHARSET_BYTES)]).to_lowercase();
    let said = head.split_once("charset").and_then(|(_, rest)| {
        let rest =
            rest.trim_start_matches(|sign: char| sign.is_whitespace() || matches!(sign, '=' | '"' | '\''));
        let end = rest.find(|sign: char| !(sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_')))?;
        Encoding::for_label(&rest.as_bytes()[..end])
    });
    said.unwrap_or(WINDOWS_1252)
}

fn pdf(bytes: &[u8], output: &mut dyn Write) -> Result<Option<String>, String> {
    let document = contained(|| open_pdf(bytes)).map_err(|panic| format!("the PDF is broken: {panic}"))??;
    let pages: Vec<u32> = document.get_pages().into_keys().collect();
    if pages.len() > PAGES_MAX {
        return Err(format!("it has {} pages, more than {PAGES_MAX}", pages.len()));
    }
    let (mut broken, mut written) = (Vec::new(), 0);
    for page in &pages {
        match contained(|| pdf_page(&document, *page)) {
            Ok(Ok(text)) => {
                written += text.len() as u64;
                output.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
            }
            Ok(Err(_)) | Err(_) => broken.push(*page),
        }
        if written > TEXT_BYTES_MAX {
            // The reader at the other end refuses it; nothing is gained by going on.
            break;
        }
    }
    if pages.len() == broken.len() {
        return Err("no page of the PDF can be read".to_owned());
    }
    Ok(broken.first().map(|first| {
        format!("{} of {} pages cannot be read, the first is page {first}", broken.len(), pages.len())
    }))
}

fn open_pdf(bytes: &[u8]) -> Result<Document, String> {
    let mut document =
        Document::load_mem(bytes).map_err(|error| format!("the PDF cannot be read: {error}"))?;
    if document.is_encrypted() {
        document.decrypt("").map_err(|_| "the PDF is locked with a password".to_owned())?;
    }
    Ok(document)
}

fn pdf_page(document: &Document, page: u32) -> Result<String, String> {
    let mut text = String::new();
    let mut output = PlainTextOutput::new(&mut text);
    output_doc_page(document, &mut output, page).map_err(|error| error.to_string())?;
    let text = text.trim();
    let mut clean = String::with_capacity(text.len() + 2);
    if !text.is_empty() {
        writeln!(clean, "{text}\n").map_err(|error| error.to_string())?;
    }
    Ok(clean)
}

/// Reads standard input to standard output under limits that the process gives itself.
///
/// # Errors
/// As [`read_document`].
pub fn run(format: Format) -> Result<Option<String>, String> {
    super::child::confine();
    // Broken pages panic; that is counted, not shown.
    std::panic::set_hook(Box::new(|_| {}));
    let mut output = io::BufWriter::new(io::stdout().lock());
    let note = read_document(format, io::stdin().lock(), &mut output)?;
    output.flush().map_err(|error| error.to_string())?;
    Ok(note)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn read(format: Format, bytes: &[u8]) -> Result<(String, Option<String>), String> {
        let mut output = Vec::new();
        let note = read_document(format, bytes, &mut output)?;
        Ok((String::from_utf8(output).unwrap(), note))
    }

    #[test]
    fn html_becomes_text_without_its_machinery() {
        let long = "word ".repeat(500);
        let page = format!(
            "<!doctype html><title>no</title><style>p {{}}</style><script>var no = 1;</script>
             <h1>Häder</h1><p>One &amp; {long}</p><ul><li>first<li>second</ul>
             <table><tr><th>key<th>value<tr><td>a<td>1<tr><td>long key<td>2</table><pre>code\n  more</pre>"
        );
        let (text, note) = read(Format::Html, page.as_bytes()).unwrap();
        let expected = format!(
            "# Häder\n\nOne & {}\n* first\n* second\n\nkey  value\na  1\nlong key 2\n\ncode\n  more\n",
            long.trim()
        );
        assert_eq!((text, note), (expected, None));
    }

    #[test]
    fn the_encoding_of_html_is_found() {
        let cases: [(&[u8], &str); 5] = [
            ("<p>hä".as_bytes(), "hä"),
            (b"<p>h\xE4", "hä"),
            (b"<meta charset=\"iso-8859-2\"><p>\xE8", "č"),
            (b"<meta http-equiv=x content='text/html; charset=koi8-r'><p>\xC1", "а"),
            (b"\xFF\xFE<\0p\0>\0x\0", "x"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(Format::Html, bytes).unwrap().0.trim(), expected, "{bytes:?}");
        }
    }

    /// A PDF whose pages are made of these content streams; one that is `None` has no size.
    fn pdf_of(pages: &[Option<&str>]) -> Vec<u8> {
        let kids: Vec<String> = (0..pages.len()).map(|page| format!("{} 0 R", 4 + 2 * page)).collect();
        let mut objects = vec![
            "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
            format!("<</Type/Pages/Count {}/Kids[{}]>>", pages.len(), kids.join(" ")),
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>".to_owned(),
        ];
        for (number, page) in pages.iter().enumerate() {
            let size = page.map_or("", |_| "/MediaBox[0 0 612 792]");
            let content = page.unwrap_or_default();
            objects.push(format!(
                "<</Type/Page/Parent 2 0 R{size}/Resources<</Font<</F 3 0 R>>>>/Contents {} 0 R>>",
                5 + 2 * number
            ));
            objects.push(format!("<</Length {}>>stream\n{content}\nendstream", content.len()));
        }
        let mut file = b"%PDF-1.4\n".to_vec();
        let size = objects.len() + 1;
        let mut table = format!("xref\n0 {size}\n0000000000 65535 f \n");
        for (number, object) in objects.iter().enumerate() {
            writeln!(table, "{:010} 00000 n ", file.len()).unwrap();
            file.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).bytes());
        }
        let start = file.len();
        let end = format!("{table}trailer\n<</Size {size}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n");
        file.extend(end.bytes());
        file
    }

    fn shows(text: &str) -> String {
        format!("BT /F 12 Tf 72 700 Td ({text}) Tj ET")
    }

    #[test]
    fn a_pdf_gives_its_pages_in_order_and_a_broken_one_is_told() {
        let (first, third) = (shows("page one"), shows("page \\344 three"));
        let file = pdf_of(&[Some(&first), None, Some(&third), Some("")]);
        let (text, note) = read(Format::Pdf, &file).unwrap();
        assert_eq!(text, "page one\n\npage ä three\n\n");
        assert_eq!(note.unwrap(), "1 of 4 pages cannot be read, the first is page 2");
    }

    #[test]
    fn what_is_no_pdf_is_refused_with_a_reason_and_whatever_is_bent_gets_an_answer() {
        let good = pdf_of(&[Some(&shows("x"))]);
        let cases: [&[u8]; 5] = [b"", b"not a pdf", &good[..good.len() / 2], b"%PDF-1.4\n", &pdf_of(&[None])];
        for bytes in cases {
            assert!(!read(Format::Pdf, bytes).unwrap_err().is_empty());
        }
        let mut read_anyway = 0;
        for at in 0..good.len() {
            let mut bent = good.clone();
            bent[at] ^= 0x15;
            read_anyway += usize::from(read(Format::Pdf, &bent).is_ok());
        }
        assert!((1..good.len()).contains(&read_anyway));
    }
}
