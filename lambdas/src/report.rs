//! `generate_report`: the sales of a span of days, as a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::ToSpan;
use jiff::civil::Date;
use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str};
use serde::{Deserialize, Serialize};
use streamer::handler::{Context, Handler, HandlerError};
use streamer::protocol::FieldError;

use crate::generated::{Numbers, page_latency};

/// `generate_report`: reads the sales of a span of days, sums them up, and renders a document.
#[derive(Debug)]
pub struct GenerateReport;

/// What `generate_report` is asked with.
#[derive(Debug, Deserialize)]
pub struct Order {
    start_date: String,
    end_date: String,
    format: Format,
}

/// What the report is rendered as.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One page with the totals.
    Pdf,
    /// One line for each month and category.
    Csv,
}

/// What `generate_report` answers with.
#[derive(Debug, PartialEq, Serialize)]
pub struct Report {
    format: Format,
    days: usize,
    sales: u64,
    total_cents: u64,
    /// By category, in alphabetical order.
    categories: BTreeMap<&'static str, u64>,
    file_name: String,
    size_bytes: usize,
    document_base64: String,
}

type Totals = BTreeMap<(i16, i8, &'static str), u64>;

const CATEGORIES: [&str; 5] = ["books", "clothing", "electronics", "home", "sports"];
const MAX_DAYS: usize = 366;
/// A page of the data source has this many days.
const DAYS_PER_PAGE: usize = 7;

impl Order {
    fn days(&self) -> Result<Vec<Date>, Vec<FieldError>> {
        let mut wrong = Vec::new();
        let mut date = |path: &str, text: &str| {
            let date = text.parse::<Date>();
            if date.is_err() {
                let problem = format!("must be a date like 2024-01-31, and is {text:?}");
                wrong.push(FieldError::new(path, problem));
            }
            date.ok()
        };
        let (start, end) = (date("start_date", &self.start_date), date("end_date", &self.end_date));
        let (Some(start), Some(end)) = (start, end) else { return Err(wrong) };
        if end < start {
            return Err(vec![FieldError::new("end_date", format!("must not be before start_date, {start}"))]);
        }
        let days: Vec<Date> =
            start.series(1.day()).take_while(|day| *day <= end).take(MAX_DAYS + 1).collect();
        if days.len() > MAX_DAYS {
            let problem = format!("must be at most {MAX_DAYS} days from start_date, {start}");
            return Err(vec![FieldError::new("end_date", problem)]);
        }
        Ok(days)
    }
}

impl Handler for GenerateReport {
    type Input = Order;
    type Output = Report;

    fn validate(&self, order: &Order) -> Result<(), Vec<FieldError>> {
        order.days().map(|_| ())
    }

    /// Always above the router's threshold: whoever orders a report wants to watch it being made.
    fn estimated_duration(&self, order: &Order) -> Duration {
        let pages = order.days().map_or(0, |days| days.len().div_ceil(DAYS_PER_PAGE));
        Duration::from_secs(6) + Duration::from_millis(60) * u32::try_from(pages).unwrap_or(u32::MAX)
    }

    async fn process(&self, order: Order, context: Context) -> Result<Report, HandlerError> {
        // Validated before; an order that was queued by an older version is told the same.
        let days =
            order.days().map_err(|wrong| HandlerError::failure("VALIDATION_ERROR", wrong[0].to_string()))?;
        let progress = &context.progress;
        progress.set_metadata("format", order.format)?;
        progress.report(0.0, "Reading sales")?;
        let (totals, sales) = read_sales(&days, &context).await?;
        progress.report(95.0, "Rendering the document")?;
        let document = match order.format {
            Format::Csv => render_csv(&totals).into_bytes(),
            Format::Pdf => render_pdf(&order, &totals),
        };
        let mut categories = BTreeMap::new();
        for ((_, _, category), cents) in &totals {
            *categories.entry(*category).or_default() += cents;
        }
        let extension = match order.format {
            Format::Csv => "csv",
            Format::Pdf => "pdf",
        };
        progress.report(100.0, "Report ready")?;
        Ok(Report {
            format: order.format,
            days: days.len(),
            sales,
            total_cents: totals.values().sum(),
            categories,
            file_name: format!("sales-{}-{}.{extension}", order.start_date, order.end_date),
            size_bytes: document.len(),
            document_base64: STANDARD.encode(document),
        })
    }
}

/// Reads the sales of each day, and sums them up by month and category.
async fn read_sales(days: &[Date], context: &Context) -> Result<(Totals, u64), HandlerError> {
    let mut totals = Totals::new();
    let mut sales = 0;
    for (page, of_page) in days.chunks(DAYS_PER_PAGE).enumerate() {
        page_latency().await;
        for day in of_page {
            let mut numbers = Numbers::named(&day.to_string());
            let of_day = 500 + numbers.below(500);
            for _ in 0..of_day {
                let category = CATEGORIES[usize::try_from(numbers.below(5)).unwrap_or(0)];
                *totals.entry((day.year(), day.month(), category)).or_default() +=
                    100 + numbers.below(20_000);
            }
            sales += of_day;
        }
        let read = (page * DAYS_PER_PAGE + of_page.len()).min(days.len());
        let percentage = read as f64 / days.len() as f64 * 90.0;
        context.progress.report(percentage, format!("Read {read} of {} days", days.len()))?;
    }
    Ok((totals, sales))
}

fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn render_csv(totals: &Totals) -> String {
    let mut csv = String::from("month,category,total\n");
    for ((year, month, category), cents) in totals {
        let _ = writeln!(csv, "{year:04}-{month:02},{category},{}", euros(*cents));
    }
    csv
}

/// A PDF of one page, with one line for each month.
fn render_pdf(order: &Order, totals: &Totals) -> Vec<u8> {
    let mut months: BTreeMap<(i16, i8), u64> = BTreeMap::new();
    for ((year, month, _), cents) in totals {
        *months.entry((*year, *month)).or_default() += cents;
    }
    let helvetica = Name(b"F1");
    let mut text = Content::new();
    let title = format!("Sales from {} to {}", order.start_date, order.end_date);
    text.begin_text().set_font(helvetica, 18.0).next_line(72.0, 770.0).show(Str(title.as_bytes()));
    text.set_font(helvetica, 12.0);
    for ((year, month), cents) in &months {
        let line = format!("{year:04}-{month:02}: {}", euros(*cents));
        text.next_line(0.0, -24.0).show(Str(line.as_bytes()));
    }
    text.end_text();

    let [catalog, pages, page, content, font] = [1, 2, 3, 4, 5].map(Ref::new);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    let mut a4 = pdf.page(page);
    a4.parent(pages).media_box(Rect::new(0.0, 0.0, 595.0, 842.0)).contents(content);
    a4.resources().fonts().pair(helvetica, font);
    a4.finish();
    pdf.stream(content, &text.finish());
    pdf.type1_font(font).base_font(Name(b"Helvetica"));
    pdf.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_pdf_has_a_title_and_one_line_per_month() {
        let order = Order {
            start_date: "2024-01-01".to_owned(),
            end_date: "2024-02-29".to_owned(),
            format: Format::Pdf,
        };
        let sales = [((2024, 1, "books"), 150), ((2024, 1, "home"), 50), ((2024, 2, "books"), 1)];
        let pdf = render_pdf(&order, &Totals::from(sales));
        let text = String::from_utf8_lossy(&pdf);
        assert!(text.starts_with("%PDF-"), "{text}");
        for line in ["(Sales from 2024-01-01 to 2024-02-29)", "(2024-01: 2.00)", "(2024-02: 0.01)"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
