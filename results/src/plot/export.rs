//! A scene as SVG, PNG and PDF.
//!
//! SVG keeps text as text. Every text states its width as measured with Noto Sans (`textLength`), so
//! that a viewer with another font squeezes or stretches letters and no label leaves its place. PNG
//! (300 dots an inch) and PDF are drawn with Noto Sans itself, which is part of the program; a PDF
//! has its letters as outlines.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;

use plotters::backend::BitMapBackend;
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle,
};
use svg2pdf::usvg;

use super::PlotError;
use super::draw::draw;
use super::scene::{Fonts, Scene};
use crate::table::escape_html;

/// Units of an SVG in a point.
const UNITS: f32 = 20.0;
/// Pixels of a PNG in a point: 300 an inch.
const PIXELS: f32 = 300.0 / 72.0;
/// Bytes that a PNG may take while it is drawn; above, its edges are less smooth.
const LARGEST: usize = 256 << 20;

/// A family for a viewer without Noto Sans.
const FAMILY: &str = "Noto Sans, DejaVu Sans, Helvetica, Arial, sans-serif";

/// The scene as an SVG file.
pub(super) fn svg(scene: &Scene, fonts: &Fonts) -> Result<String, PlotError> {
    let [width, height] = [scene.width, scene.height].map(|side| (side * UNITS).ceil() as u32);
    let mut svg = Svg { body: String::new(), size: (width, height) };
    draw(scene, fonts, &mut svg, UNITS).map_err(|error| PlotError::Drawing(error.to_string()))?;
    let title = escape_html(&scene.title);
    let [w, h] = [width, height].map(|side| side as f32 / UNITS);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}pt\" height=\"{h}pt\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" \
         font-family=\"{FAMILY}\">\n{}</svg>\n",
        svg.body
    ))
}

/// The scene as a PNG file.
pub(super) fn png(scene: &Scene, fonts: &Fonts) -> Result<Vec<u8>, PlotError> {
    let [width, height] = [scene.width, scene.height].map(|side| (side * PIXELS).ceil() as usize);
    // Drawn larger and averaged: shapes have no smooth edges otherwise.
    let times = (1..=3).rev().find(|n| width * height * n * n * 3 <= LARGEST).unwrap_or(1);
    let (wide, high) = (width * times, height * times);
    let mut large = vec![255; wide * high * 3];
    let mut backend = BitMapBackend::with_buffer(&mut large, (wide as u32, high as u32));
    draw(scene, fonts, &mut backend, PIXELS * times as f32)
        .map_err(|error| PlotError::Drawing(error.to_string()))?;
    drop(backend);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for row in large.chunks_exact(wide * 3 * times) {
        for x in 0..width {
            for channel in 0..3 {
                let of = |dx: usize, dy: usize| {
                    usize::from(row[(dy * wide + x * times + dx) * 3 + channel])
                };
                let sum: usize =
                    (0..times).flat_map(|dy| (0..times).map(move |dx| of(dx, dy))).sum();
                pixels.push(((sum + times * times / 2) / (times * times)) as u8);
            }
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: 11811,
        yppu: 11811,
        unit: png::Unit::Meter,
    }));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(file)
}

/// The scene as a PDF file of its own size.
pub(super) fn pdf(scene: &Scene, fonts: &Fonts) -> Result<Vec<u8>, PlotError> {
    let mut known = usvg::fontdb::Database::new();
    known.load_font_data(notosans::REGULAR_TTF.to_vec());
    known.load_font_data(notosans::BOLD_TTF.to_vec());
    let options = usvg::Options { fontdb: Arc::new(known), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(&svg(scene, fonts)?, &options)
        .map_err(|error| PlotError::Drawing(error.to_string()))?;
    // Letters as outlines: fonts are embedded in an order that changes from run to run.
    let conversion =
        svg2pdf::ConversionOptions { embed_text: false, ..svg2pdf::ConversionOptions::default() };
    let page = svg2pdf::PageOptions { dpi: options.dpi };
    svg2pdf::to_pdf(&tree, conversion, page).map_err(|error| PlotError::Drawing(error.to_string()))
}

/// plotters draws SVG too, but leaves the width of text to the viewer's fonts.
struct Svg {
    body: String,
    size: (u32, u32),
}

fn hex(colour: BackendColor) -> String {
    let (r, g, b) = colour.rgb;
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// `x,y x,y`.
fn listed(path: impl IntoIterator<Item = BackendCoord>) -> String {
    let places: Vec<String> = path.into_iter().map(|(x, y)| format!("{x},{y}")).collect();
    places.join(" ")
}

impl Svg {
    fn put(
        &mut self,
        element: std::fmt::Arguments<'_>,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        // Writing to a String does not fail.
        let _ = writeln!(self.body, "{element}");
        Ok(())
    }
}

impl DrawingBackend for Svg {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn draw_pixel(
        &mut self,
        (x, y): BackendCoord,
        colour: BackendColor,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let fill = hex(colour);
        self.put(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"1\" height=\"1\" fill=\"{fill}\"/>"
        ))
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let (points, colour, width) = (listed(path), hex(style.color()), style.stroke_width());
        self.put(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" \
             stroke-width=\"{width}\" stroke-linejoin=\"round\"/>"
        ))
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (x0, y0): BackendCoord,
        (x1, y1): BackendCoord,
        style: &S,
        _: bool,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let fill = hex(style.color());
        let (width, height) = (x1 - x0, y1 - y0);
        self.put(format_args!(
            "<rect x=\"{x0}\" y=\"{y0}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
        ))
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        radius: u32,
        style: &S,
        _: bool,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let fill = hex(style.color());
        self.put(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" fill=\"{fill}\"/>"))
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let (points, fill) = (listed(corners), hex(style.color()));
        let opacity = match style.color().alpha {
            1.0 => String::new(),
            alpha => format!(" fill-opacity=\"{alpha}\""),
        };
        self.put(format_args!("<polygon points=\"{points}\" fill=\"{fill}\"{opacity}/>"))
    }

    fn draw_text<T: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &T,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let length = style.layout_box(text).map_or(0, |(_, (length, _))| length);
        let (size, fill, text) = (style.size().round(), hex(style.color()), escape_html(text));
        let weight = match style.style() {
            FontStyle::Bold => " font-weight=\"bold\"",
            _ => "",
        };
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\"{weight} fill=\"{fill}\" \
             textLength=\"{length}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>"
        ))
    }
}
