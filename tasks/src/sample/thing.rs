//! What a pixel shows, and the label that each data set gives it.

/// What the scenes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Sky,
    Wall,
    Floor,
    Ceiling,
    Window,
    Door,
    Painting,
    Rug,
    Cabinet,
    Table,
    Chair,
    Sofa,
    Lamp,
    Plant,
    Screen,
    Bottle,
    Road,
    Sidewalk,
    Grass,
    Building,
    Tree,
    Car,
    Bus,
    Person,
    Pole,
    Water,
    Barren,
    Field,
    /// Something that no data set names.
    Other,
}

impl Thing {
    /// SceneParse150 in the authors' form: 0..149, 255 unlabelled.
    pub fn ade20k(self) -> u8 {
        match self {
            Self::Wall => 0,
            Self::Building => 1,
            Self::Sky => 2,
            Self::Floor => 3,
            Self::Tree => 4,
            Self::Ceiling => 5,
            Self::Road => 6,
            Self::Window => 8,
            Self::Grass => 9,
            Self::Cabinet => 10,
            Self::Sidewalk => 11,
            Self::Person => 12,
            Self::Barren => 13,
            Self::Door => 14,
            Self::Table => 15,
            Self::Plant => 17,
            Self::Chair => 19,
            Self::Car => 20,
            Self::Water => 21,
            Self::Painting => 22,
            Self::Sofa => 23,
            Self::Rug => 28,
            Self::Field => 29,
            Self::Lamp => 36,
            Self::Bus => 80,
            Self::Screen => 89,
            Self::Pole => 93,
            Self::Bottle => 98,
            Self::Other => 255,
        }
    }

    /// Pascal VOC 2012: 0 background, 1..20.
    pub fn voc2012(self) -> u8 {
        match self {
            Self::Bottle => 5,
            Self::Bus => 6,
            Self::Car => 7,
            Self::Chair => 9,
            Self::Table => 11,
            Self::Person => 15,
            Self::Plant => 16,
            Self::Sofa => 18,
            Self::Screen => 20,
            _ => 0,
        }
    }

    /// LoveDA in its original form: 0 no data, 1 background, 2..7.
    pub fn loveda(self) -> u8 {
        match self {
            Self::Building => 2,
            Self::Road => 3,
            Self::Water => 4,
            Self::Barren => 5,
            Self::Tree => 6,
            Self::Field => 7,
            _ => 1,
        }
    }
}
