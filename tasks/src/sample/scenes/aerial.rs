//! Land seen from straight above.

use super::{Pile, UP};
use crate::sample::draw::Draw;
use crate::sample::material::{Material, Pattern};
use crate::sample::render::{Camera, Light, Scene};
use crate::sample::thing::Thing;
use crate::sample::vector::{Turn, Vec3, vec3};

/// Half the width of ground that a picture shows, in metres.
const REACH: f64 = 60.0;
const ALTITUDE: f64 = 300.0;

/// A town (`urban`) or fields of about 120 metres across, in a square picture.
pub(in crate::sample) fn aerial(draw: &mut Draw, urban: bool, side: usize) -> (Scene, Camera) {
    let mut pile = Pile::default();
    let seed = draw.word();
    let hue = draw.range(0.13, 0.25);
    let soil = draw.hue(hue, (0.15, 0.35), (0.5, 0.65));
    let soil = Material::patterned(soil, soil * 0.75, Pattern::Clouds { period: 9.0 });
    pile.plane(Vec3::default(), UP, soil.grainy(0.2, seed), Thing::Other);
    if urban {
        town(&mut pile, draw);
    } else {
        country(&mut pile, draw);
    }
    let sun = vec3(draw.range(-0.7, 0.7), 1.0, draw.range(-0.7, 0.7)).unit();
    let scene = Scene {
        objects: pile.objects,
        light: Light::Sun(sun),
        light_colour: vec3(1.0, 0.96, 0.88) * draw.range(0.65, 0.85),
        ambient: vec3(0.92, 0.97, 1.05) * draw.range(0.28, 0.4),
        sky: (vec3(0.8, 0.8, 0.8), vec3(0.8, 0.8, 0.8)),
        grain: 1.0,
        room: None,
    };
    let focal = 0.5 * side as f64 * ALTITUDE / REACH;
    let eye = vec3(0.0, ALTITUDE, 0.0);
    (scene, Camera::look(eye, Vec3::default(), vec3(0.0, 0.0, 1.0), focal, (side, side)))
}

/// A thin patch of ground; later patches lie on earlier ones.
fn patch(
    pile: &mut Pile,
    at: Vec3,
    size: (f64, f64),
    turn: Turn,
    material: Material,
    thing: Thing,
) {
    let thickness = 0.02 + 0.01 * pile.objects.len() as f64;
    pile.cuboid(at, vec3(size.0, thickness, size.1), turn, material, thing);
}

fn asphalt(draw: &mut Draw) -> Material {
    let tone = draw.range(0.12, 0.25);
    let grey = vec3(tone, tone, tone * 1.04);
    Material::plain(grey).grainy(0.12, draw.word())
}

fn water(draw: &mut Draw) -> Material {
    let hue = draw.range(0.45, 0.58);
    let deep = draw.hue(hue, (0.35, 0.6), (0.3, 0.5));
    let seed = draw.word();
    Material::patterned(deep, deep * 0.8, Pattern::Clouds { period: 6.0 })
        .grainy(0.05, seed)
        .glossy(0.1)
}

fn barren(draw: &mut Draw) -> Material {
    let hue = draw.range(0.06, 0.11);
    let sand = draw.hue(hue, (0.25, 0.45), (0.65, 0.85));
    let seed = draw.word();
    Material::patterned(sand, sand * 0.8, Pattern::Clouds { period: 4.0 }).grainy(0.2, seed)
}

fn field(draw: &mut Draw) -> Material {
    let hue = draw.range(0.12, 0.32);
    let crop = draw.hue(hue, (0.4, 0.7), (0.45, 0.75));
    let axis = draw.one_of([0, 2]);
    let pattern = Pattern::Stripes { axis, period: draw.range(1.6, 3.2) };
    let shade = draw.range(0.65, 0.85);
    let seed = draw.word();
    Material::patterned(crop, crop * shade, pattern).grainy(0.15, seed)
}

fn tree(pile: &mut Pile, draw: &mut Draw, at: Vec3, radius: f64) {
    let hue = draw.range(0.24, 0.36);
    let leaf = draw.hue(hue, (0.45, 0.7), (0.25, 0.45));
    let seed = draw.word();
    let leaf = Material::patterned(leaf, leaf * 0.5, Pattern::Clouds { period: 1.2 });
    let centre = at + vec3(0.0, 0.6 * radius, 0.0);
    pile.sphere(centre, radius, leaf.grainy(0.3, seed), Thing::Tree);
}

fn house(pile: &mut Pile, draw: &mut Draw, at: Vec3, size: (f64, f64), height: f64, turn: Turn) {
    let hue = draw.one_of([0.01, 0.03, 0.08, 0.58]);
    let roof = draw.hue(hue, (0.05, 0.6), (0.45, 0.85));
    let seed = draw.word();
    let axis = draw.one_of([0, 2]);
    let tiles = Material::patterned(roof, roof * 0.8, Pattern::Stripes { axis, period: 1.6 });
    let extent = vec3(size.0, height, size.1);
    pile.cuboid(at, extent, turn, tiles.grainy(0.08, seed), Thing::Building);
    let box_at = at + turn.apply(vec3(0.22 * size.0, height, 0.2 * size.1));
    let vent = Material::plain(vec3(0.5, 0.5, 0.5));
    pile.cuboid(box_at, vec3(1.6, 1.0, 1.6), turn, vent, Thing::Building);
}

/// Blocks between streets, built up, planted, paved or flooded, one at the edge still a field.
fn town(pile: &mut Pile, draw: &mut Draw) {
    let turn = draw.turn(0.2);
    let street = draw.range(7.0, 9.0);
    let block = draw.range(36.0, 44.0);
    let tar = asphalt(draw);
    let long = 6.0 * REACH;
    let shift = vec3(draw.range(-10.0, 10.0), 0.0, draw.range(-10.0, 10.0));
    let paint = Material::plain(vec3(0.7, 0.7, 0.66));
    for index in -2..=2 {
        let off = (f64::from(index) - 0.5) * block;
        let across = shift + turn.apply(vec3(off, 0.0, 0.0));
        patch(pile, across, (street, long), turn, tar, Thing::Road);
        let along = shift + turn.apply(vec3(0.0, 0.0, off));
        patch(pile, along, (long, street), turn, tar, Thing::Road);
        patch(pile, across, (0.35, long), turn, paint, Thing::Road);
    }
    let special = draw.pick(9);
    for index in 0..9 {
        let (i, j) = (index % 3, index / 3);
        let middle =
            shift + turn.apply(vec3((i as f64 - 1.0) * block, 0.0, (j as f64 - 1.0) * block));
        let room = block - street - 4.0;
        match (index + 9 - special) % 9 {
            0 => patch(pile, middle, (room, room), turn, field(draw), Thing::Field),
            1 => {
                patch(pile, middle, (room, room), turn, barren(draw), Thing::Barren);
            }
            2 => {
                let pond = water(draw);
                patch(pile, middle, (room * 0.8, room * 0.6), turn, pond, Thing::Water);
                grove(pile, draw, middle + turn.apply(vec3(0.0, 0.0, 0.42 * room)), 0.3 * room, 5);
            }
            _ => {
                for (x, z) in [(-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)] {
                    let at = middle + turn.apply(vec3(x * 0.25 * room, 0.0, z * 0.25 * room));
                    if draw.chance(0.8) {
                        let size = (room * draw.range(0.25, 0.42), room * draw.range(0.25, 0.42));
                        let height = draw.range(5.0, 22.0);
                        house(pile, draw, at, size, height, turn);
                    } else {
                        grove(pile, draw, at, 0.2 * room, 4);
                    }
                }
            }
        }
    }
}

/// Fields cut by a river and a lane, with woods, a farm and bare ground.
fn country(pile: &mut Pile, draw: &mut Draw) {
    let turn = draw.turn(0.3);
    let size = draw.range(34.0, 46.0);
    let bare = draw.pick(9);
    for index in 0..25 {
        let (i, j) = (index % 5, index / 5);
        let at = turn.apply(vec3((i as f64 - 2.0) * size, 0.0, (j as f64 - 2.0) * size));
        let strip = (size - 1.5, size - 1.5);
        let inner = i.clamp(1, 3) - 1 + 3 * (j.clamp(1, 3) - 1);
        if inner == bare {
            patch(pile, at, strip, turn, barren(draw), Thing::Barren);
        } else {
            patch(pile, at, strip, turn, field(draw), Thing::Field);
        }
    }
    let lane = turn.apply(vec3(size * draw.one_of([-0.5, 0.5]), 0.0, 0.0));
    patch(pile, lane, (5.0, 8.0 * REACH), turn, asphalt(draw), Thing::Road);

    // One colour, so that the overlapping pieces do not show.
    let stream = Material { pattern: Pattern::Plain, ..water(draw) };
    let width = draw.range(9.0, 15.0);
    let mut z = draw.range(-25.0, 25.0);
    let mut slope = draw.range(-0.5, 0.5);
    let mut x = -1.5 * REACH;
    while x < 1.5 * REACH {
        let bend = Turn::half_tangent(-0.5 * slope);
        patch(pile, vec3(x, 0.0, z), (14.0, width), bend, stream, Thing::Water);
        x += 6.0;
        z += 6.0 * slope;
        slope = (slope + draw.range(-0.2, 0.2)).clamp(-0.7, 0.7);
    }
    for _ in 0..2 {
        let at = vec3(draw.range(-45.0, 45.0), 0.0, draw.range(-45.0, 45.0));
        let spread = draw.range(10.0, 15.0);
        grove(pile, draw, at, spread, 16);
    }
    for _ in 0..3 {
        let at = lane + turn.apply(vec3(draw.range(7.0, 14.0), 0.0, draw.range(-40.0, 40.0)));
        let size = (draw.range(8.0, 14.0), draw.range(7.0, 10.0));
        let height = draw.range(4.0, 7.0);
        house(pile, draw, at, size, height, turn);
    }
}

fn grove(pile: &mut Pile, draw: &mut Draw, middle: Vec3, spread: f64, trees: usize) {
    for _ in 0..trees {
        let off = vec3(draw.range(-spread, spread), 0.0, draw.range(-spread, spread));
        let radius = draw.range(2.2, 4.6);
        tree(pile, draw, middle + off, radius);
    }
}
