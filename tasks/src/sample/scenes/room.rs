//! A furnished room.

use super::{Pile, UP};
use crate::sample::draw::Draw;
use crate::sample::material::{Material, Pattern};
use crate::sample::render::{Camera, Light, Scene};
use crate::sample::shape::Shape;
use crate::sample::thing::Thing;
use crate::sample::vector::{Turn, Vec3, vec3};

/// A room of 4 to 6 metres seen from one end, everything in it nearer than 10 metres.
pub(in crate::sample) fn room(
    draw: &mut Draw,
    focal: f64,
    size: (usize, usize),
) -> (Scene, Camera) {
    let inside = vec3(draw.range(4.0, 6.0), draw.range(2.5, 2.9), draw.range(4.5, 6.5));
    let mut pile = Pile::default();
    shell(&mut pile, draw, inside);
    back_wall(&mut pile, draw, inside);
    left_wall(&mut pile, draw, inside);
    right_wall(&mut pile, draw, inside);
    middle(&mut pile, draw, inside);

    let eye = vec3(inside.x * draw.range(0.3, 0.7), draw.range(1.35, 1.75), draw.range(0.25, 0.5));
    let target = vec3(inside.x * draw.range(0.35, 0.65), draw.range(0.75, 1.05), inside.z);
    let lamp =
        vec3(inside.x * draw.range(0.3, 0.7), inside.y - 0.25, inside.z * draw.range(0.3, 0.6));
    let scene = Scene {
        objects: pile.objects,
        light: Light::Lamp(lamp),
        light_colour: vec3(1.0, 0.95, 0.86) * draw.range(0.5, 0.75),
        ambient: vec3(0.98, 0.98, 1.0) * draw.range(0.36, 0.5),
        sky: (vec3(0.8, 0.85, 0.9), vec3(0.5, 0.65, 0.9)),
        grain: 1.0,
        room: Some((Vec3::default(), inside)),
    };
    (scene, Camera::look(eye, target, UP, focal, size))
}

fn wood(draw: &mut Draw) -> Material {
    let hue = draw.range(0.05, 0.1);
    let tone = draw.hue(hue, (0.35, 0.65), (0.4, 0.8));
    let seed = draw.word();
    Material::patterned(tone, tone * 0.75, Pattern::Clouds { period: 0.3 })
        .grainy(0.12, seed)
        .glossy(0.15)
}

fn cloth(draw: &mut Draw) -> Material {
    let tone = draw.any((0.3, 0.75), (0.35, 0.8));
    let seed = draw.word();
    Material::plain(tone).grainy(0.25, seed)
}

fn shell(pile: &mut Pile, draw: &mut Draw, inside: Vec3) {
    let paint = draw.any((0.05, 0.3), (0.65, 0.92));
    let seed = draw.word();
    let pattern = match draw.pick(3) {
        0 => Pattern::Stripes { axis: 0, period: 0.4 },
        1 => Pattern::Bricks { length: 0.44, height: 0.16 },
        _ => Pattern::Plain,
    };
    let side = Material::plain(paint).grainy(0.06, seed);
    let back = Material::patterned(paint, paint * 0.82, pattern).grainy(0.06, seed);
    pile.plane(vec3(0.0, 0.0, 0.0), vec3(1.0, 0.0, 0.0), side, Thing::Wall);
    pile.plane(vec3(inside.x, 0.0, 0.0), vec3(-1.0, 0.0, 0.0), side, Thing::Wall);
    pile.plane(vec3(0.0, 0.0, inside.z), vec3(0.0, 0.0, -1.0), back, Thing::Wall);
    pile.plane(vec3(0.0, 0.0, 0.0), vec3(0.0, 0.0, 1.0), side, Thing::Wall);

    let hue = draw.range(0.05, 0.11);
    let tone = draw.hue(hue, (0.25, 0.6), (0.45, 0.8));
    let pattern = if draw.chance(0.6) {
        Pattern::Planks { width: 0.16, length: 1.4 }
    } else {
        Pattern::Bricks { length: 0.5, height: 0.5 }
    };
    let seed = draw.word();
    let floor = Material::patterned(tone, tone * 0.45, pattern).grainy(0.15, seed).glossy(0.12);
    pile.plane(Vec3::default(), UP, floor, Thing::Floor);
    let white = Material::plain(vec3(0.86, 0.86, 0.84)).grainy(0.03, seed);
    pile.plane(vec3(0.0, inside.y, 0.0), -UP, white, Thing::Ceiling);
}

/// A sofa or a cabinet with a screen, and a window or a painting above.
fn back_wall(pile: &mut Pile, draw: &mut Draw, inside: Vec3) {
    let x = inside.x * draw.range(0.35, 0.65);
    if draw.chance(0.5) {
        sofa(pile, draw, vec3(x, 0.0, inside.z - 0.5), (inside.x * 0.4).min(2.1));
    } else {
        let material = wood(draw);
        let foot = vec3(x, 0.0, inside.z - 0.28);
        pile.cuboid(foot, vec3(1.7, 0.55, 0.5), Turn::NONE, material, Thing::Cabinet);
        let dark = Material::plain(vec3(0.012, 0.014, 0.02)).grainy(0.0, 0).glossy(0.8);
        let foot = vec3(x, 0.6, inside.z - 0.25);
        pile.cuboid(foot, vec3(1.15, 0.65, 0.06), Turn::NONE, dark, Thing::Screen);
    }
    let beside = if x > 0.5 * inside.x { x - 1.75 } else { x + 1.75 };
    if draw.chance(0.5) {
        plant(pile, draw, vec3(beside, 0.0, inside.z - 0.4));
    } else {
        floor_lamp(pile, draw, vec3(beside, 0.0, inside.z - 0.35));
    }
    let frame = wood(draw);
    let width = draw.range(0.7, 1.3);
    let foot = vec3(x, 1.4, inside.z);
    pile.cuboid(foot, vec3(width, 0.8, 0.06), Turn::NONE, frame, Thing::Painting);
    let (first, second) = (draw.any((0.4, 0.9), (0.5, 0.9)), draw.any((0.3, 0.8), (0.3, 0.9)));
    let seed = draw.word();
    let art =
        Material::patterned(first, second, Pattern::Clouds { period: 0.22 }).grainy(0.1, seed);
    let foot = vec3(x, 1.46, inside.z);
    pile.cuboid(foot, vec3(width - 0.12, 0.68, 0.07), Turn::NONE, art, Thing::Painting);
}

/// A window with daylight over a low cabinet.
fn left_wall(pile: &mut Pile, draw: &mut Draw, inside: Vec3) {
    let z = inside.z * draw.range(0.55, 0.72);
    let frame = Material::plain(vec3(0.8, 0.8, 0.78)).grainy(0.0, 0);
    pile.cuboid(vec3(0.0, 0.95, z), vec3(0.1, 1.25, 1.5), Turn::NONE, frame, Thing::Window);
    let day = Material::plain(vec3(0.5, 0.72, 0.95)).grainy(0.0, 0).glowing(0.9);
    for side in [-0.36, 0.36] {
        let foot = vec3(0.0, 1.02, z + side);
        pile.cuboid(foot, vec3(0.11, 1.11, 0.64), Turn::NONE, day, Thing::Window);
    }
    if draw.chance(0.6) {
        let material = wood(draw);
        let length = draw.range(0.9, 1.6);
        let height = draw.range(0.6, 0.85);
        let foot = vec3(0.25, 0.0, z - 0.2);
        pile.cuboid(foot, vec3(0.5, height, length), Turn::NONE, material, Thing::Cabinet);
        bottle(pile, draw, vec3(0.3, height, z - 0.35));
    }
}

/// A door, and a wardrobe further on.
fn right_wall(pile: &mut Pile, draw: &mut Draw, inside: Vec3) {
    let z = inside.z * draw.range(0.4, 0.55);
    let leaf = wood(draw);
    pile.cuboid(vec3(inside.x, 0.0, z), vec3(0.08, 2.05, 0.9), Turn::NONE, leaf, Thing::Door);
    let knob = Material::plain(vec3(0.6, 0.5, 0.2)).glossy(0.9);
    pile.sphere(vec3(inside.x - 0.08, 1.0, z - 0.36), 0.045, knob, Thing::Door);
    let body = wood(draw);
    let height = draw.range(1.5, 2.1);
    let foot = vec3(inside.x - 0.3, 0.0, inside.z - 0.9);
    pile.cuboid(foot, vec3(0.6, height, 1.1), Turn::NONE, body, Thing::Cabinet);
    let inlay = Material { first: body.first * 1.2, ..body };
    for side in [-0.27, 0.27] {
        let foot = foot + vec3(0.0, 0.1, side);
        pile.cuboid(foot, vec3(0.63, height - 0.2, 0.48), Turn::NONE, inlay, Thing::Cabinet);
    }
}

/// A table with chairs on a rug, and something lying about that has no name.
fn middle(pile: &mut Pile, draw: &mut Draw, inside: Vec3) {
    let spot = vec3(inside.x * draw.range(0.42, 0.58), 0.0, inside.z * draw.range(0.48, 0.58));
    let turn = draw.turn(0.35);
    let (first, second) = (draw.any((0.4, 0.8), (0.3, 0.7)), draw.any((0.2, 0.6), (0.5, 0.85)));
    let seed = draw.word();
    let axis = draw.one_of([0, 2]);
    let rug = Material::patterned(first, second, Pattern::Stripes { axis, period: 0.32 });
    pile.cuboid(spot, vec3(2.4, 0.015, 1.7), turn, rug.grainy(0.25, seed), Thing::Rug);

    let top = wood(draw);
    let height = draw.range(0.68, 0.76);
    let at = |x: f64, y: f64, z: f64| spot + turn.apply(vec3(x, y, z));
    if draw.chance(0.4) {
        pile.cylinder(at(0.0, height - 0.04, 0.0), 0.55, 0.04, top, Thing::Table);
        pile.cylinder(at(0.0, 0.0, 0.0), 0.05, height, top, Thing::Table);
        pile.cylinder(at(0.0, 0.0, 0.0), 0.28, 0.04, top, Thing::Table);
    } else {
        let board = vec3(1.2, 0.04, 0.75);
        pile.cuboid(at(0.0, height - 0.04, 0.0), board, turn, top, Thing::Table);
        for (x, z) in [(-0.54, -0.31), (0.54, -0.31), (-0.54, 0.31), (0.54, 0.31)] {
            let leg = vec3(0.06, height - 0.04, 0.06);
            pile.cuboid(at(x, 0.0, z), leg, turn, top, Thing::Table);
        }
    }
    let on_top = at(draw.range(-0.3, 0.3), height, draw.range(-0.15, 0.15));
    bottle(pile, draw, on_top);
    let seat = cloth(draw);
    let legs = wood(draw);
    chair(pile, at(-0.95, 0.0, 0.05), Turn { cos: turn.sin, sin: -turn.cos }, seat, legs);
    chair(pile, at(0.95, 0.0, -0.05), Turn { cos: -turn.sin, sin: turn.cos }, seat, legs);

    let side = draw.one_of([-1.0, 1.0]);
    let odd = draw.any((0.5, 0.9), (0.5, 0.95));
    let foot = spot + vec3(side * 1.2, 0.0, -1.15);
    let material = Material::patterned(odd, vec3(0.8, 0.8, 0.75), Pattern::Checks { period: 0.2 });
    if draw.chance(0.5) {
        let radius = draw.range(0.12, 0.22);
        pile.sphere(foot + vec3(0.0, radius, 0.0), radius, material.glossy(0.5), Thing::Other);
    } else {
        let around = draw.turn(0.5);
        pile.cuboid(foot, vec3(0.4, 0.3, 0.3), around, material, Thing::Other);
    }
}

fn sofa(pile: &mut Pile, draw: &mut Draw, foot: Vec3, width: f64) {
    let fabric = cloth(draw);
    let mut part = |x: f64, y: f64, z: f64, size: Vec3| {
        pile.cuboid(foot + vec3(x, y, z), size, Turn::NONE, fabric, Thing::Sofa);
    };
    part(0.0, 0.08, 0.0, vec3(width, 0.34, 0.85));
    part(0.0, 0.08, 0.34, vec3(width, 0.75, 0.2));
    for side in [-0.5, 0.5] {
        part(side * (width - 0.18), 0.08, 0.0, vec3(0.2, 0.52, 0.87));
        part(0.5 * side * (width - 0.4), 0.42, -0.08, vec3(0.5 * width - 0.24, 0.1, 0.66));
    }
}

/// A chair whose back is behind it along +z before the turn.
fn chair(pile: &mut Pile, foot: Vec3, turn: Turn, seat: Material, legs: Material) {
    let at = |x: f64, y: f64, z: f64| foot + turn.apply(vec3(x, y, z));
    pile.cuboid(at(0.0, 0.42, 0.0), vec3(0.44, 0.05, 0.44), turn, seat, Thing::Chair);
    pile.cuboid(at(0.0, 0.55, 0.2), vec3(0.44, 0.4, 0.04), turn, seat, Thing::Chair);
    for (x, z, height) in [(-0.2, -0.2, 0.42), (0.2, -0.2, 0.42), (-0.2, 0.2, 0.9), (0.2, 0.2, 0.9)]
    {
        pile.cuboid(at(x, 0.0, z), vec3(0.04, height, 0.04), turn, legs, Thing::Chair);
    }
}

fn plant(pile: &mut Pile, draw: &mut Draw, foot: Vec3) {
    let pot = Material::plain(vec3(0.42, 0.16, 0.08)).grainy(0.15, 3);
    pile.cylinder(foot, 0.17, 0.32, pot, Thing::Plant);
    let seed = draw.word();
    let hue = draw.range(0.25, 0.36);
    let leaf = draw.hue(hue, (0.6, 0.85), (0.35, 0.6));
    let leaf = Material::patterned(leaf, leaf * 0.4, Pattern::Clouds { period: 0.07 });
    for _ in 0..5 {
        let off = vec3(draw.range(-0.2, 0.2), draw.range(0.5, 1.05), draw.range(-0.12, 0.12));
        let radius = draw.range(0.14, 0.23);
        pile.sphere(foot + off, radius, leaf.grainy(0.4, seed), Thing::Plant);
    }
}

fn floor_lamp(pile: &mut Pile, draw: &mut Draw, foot: Vec3) {
    let metal = Material::plain(vec3(0.2, 0.2, 0.2)).glossy(0.7);
    pile.cylinder(foot, 0.14, 0.03, metal, Thing::Lamp);
    pile.cylinder(foot, 0.02, 1.4, metal, Thing::Lamp);
    let hue = draw.range(0.08, 0.15);
    let shade = Material::plain(draw.hue(hue, (0.2, 0.5), (0.8, 0.95))).glowing(0.7);
    let base = foot + vec3(0.0, 1.3, 0.0);
    pile.add(Shape::Cone { base, axis: UP, radius: 0.26, height: 0.5 }, shade, Thing::Lamp);
}

fn bottle(pile: &mut Pile, draw: &mut Draw, foot: Vec3) {
    let glass = Material::plain(draw.any((0.5, 0.9), (0.25, 0.6))).glossy(0.9);
    pile.cylinder(foot, 0.045, 0.2, glass, Thing::Bottle);
    pile.sphere(foot + vec3(0.0, 0.2, 0.0), 0.045, glass, Thing::Bottle);
    pile.cylinder(foot + vec3(0.0, 0.22, 0.0), 0.016, 0.1, glass, Thing::Bottle);
}
