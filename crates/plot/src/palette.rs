use plotters::style::RGBColor;

/// Colours that are told apart by everyone (Okabe and Ito 2008).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Black.
    Black,
    /// Grey, for what lies behind.
    Grey,
    /// By number, again from the first after the sixth.
    Series(usize),
}

impl Color {
    /// How many series have colours of their own.
    pub const SERIES: usize = 6;

    pub(crate) fn rgb(self) -> RGBColor {
        const COLORS: [RGBColor; Color::SERIES] = [
            RGBColor(0, 114, 178),
            RGBColor(213, 94, 0),
            RGBColor(0, 158, 115),
            RGBColor(204, 121, 167),
            RGBColor(230, 159, 0),
            RGBColor(86, 180, 233),
        ];
        match self {
            Self::Black => RGBColor(0, 0, 0),
            Self::Grey => RGBColor(140, 140, 140),
            Self::Series(i) => COLORS[i % COLORS.len()],
        }
    }
}
