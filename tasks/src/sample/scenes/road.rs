//! A street with traffic.

use super::{Pile, UP};
use crate::sample::draw::Draw;
use crate::sample::material::{Material, Pattern};
use crate::sample::render::{Camera, Light, Scene};
use crate::sample::shape::Shape;
use crate::sample::thing::Thing;
use crate::sample::vector::{Turn, Vec3, vec3};

const LENGTH: f64 = 400.0;
const ROAD: f64 = 4.2;
const SIDEWALK: f64 = 2.2;
/// The ground and the road surface on it, in metres.
const SURFACE: f64 = 0.05;

/// A straight street seen from a car in its right lane.
pub(in crate::sample) fn road(
    draw: &mut Draw,
    focal: f64,
    size: (usize, usize),
) -> (Scene, Camera) {
    let mut pile = Pile::default();
    ground(&mut pile, draw);
    for side in [-1.0, 1.0] {
        roadside(&mut pile, draw, side);
    }
    traffic(&mut pile, draw);

    let eye = vec3(draw.range(1.5, 2.3), 1.65, 0.0);
    // The horizon stands a little above the middle, as with a camera on a car's roof.
    let target = eye + vec3(draw.range(-0.06, 0.06), draw.range(-0.03, 0.0), 1.0);
    let sun = vec3(draw.range(-0.9, 0.9), draw.range(0.7, 1.2), draw.range(-0.8, 0.1)).unit();
    let haze = draw.range(0.75, 0.95);
    let scene = Scene {
        objects: pile.objects,
        light: Light::Sun(sun),
        light_colour: vec3(1.0, 0.95, 0.85) * draw.range(0.65, 0.9),
        ambient: vec3(0.9, 0.96, 1.05) * draw.range(0.3, 0.42),
        sky: (vec3(haze, haze, 0.95), vec3(0.2, draw.range(0.35, 0.45), 0.8)),
        grain: 1.0,
        room: None,
    };
    (scene, Camera::look(eye, target, UP, focal, size))
}

fn ground(pile: &mut Pile, draw: &mut Draw) {
    let hue = draw.range(0.17, 0.25);
    let grass = draw.hue(hue, (0.4, 0.6), (0.4, 0.55));
    let seed = draw.word();
    let lawn = Material::patterned(grass, grass * 0.7, Pattern::Clouds { period: 1.5 });
    pile.plane(Vec3::default(), UP, lawn.grainy(0.3, seed), Thing::Grass);

    let middle = vec3(0.0, 0.0, 0.5 * LENGTH - 10.0);
    let tone = draw.range(0.06, 0.13);
    let asphalt = vec3(tone, tone, tone * 1.05);
    let asphalt = Material::patterned(asphalt, asphalt * 0.8, Pattern::Clouds { period: 2.5 });
    let extent = vec3(2.0 * ROAD, SURFACE, LENGTH);
    pile.cuboid(middle, extent, Turn::NONE, asphalt.grainy(0.2, seed), Thing::Road);
    let paint = Material::plain(vec3(0.75, 0.75, 0.72));
    for index in 0..14 {
        let dash = vec3(0.0, 0.0, 4.0 + 6.0 * f64::from(index));
        pile.cuboid(dash, vec3(0.14, SURFACE + 0.004, 2.6), Turn::NONE, paint, Thing::Road);
    }
    let tone = draw.range(0.3, 0.45);
    let slab = vec3(tone, tone * 0.97, tone * 0.92);
    let slabs = Material::patterned(slab, slab * 0.6, Pattern::Bricks { length: 1.0, height: 1.0 });
    for side in [-1.0, 1.0] {
        let at = middle + vec3(side * (ROAD + 0.5 * SIDEWALK), 0.0, 0.0);
        let extent = vec3(SIDEWALK, 0.18, LENGTH);
        pile.cuboid(at, extent, Turn::NONE, slabs.grainy(0.15, seed), Thing::Sidewalk);
        let line = vec3(side * (ROAD - 0.25), 0.0, middle.z);
        let extent = vec3(0.12, SURFACE + 0.004, LENGTH);
        pile.cuboid(line, extent, Turn::NONE, paint, Thing::Road);
    }
}

/// Houses with gaps for trees, posts along the kerb, people on the sidewalk.
fn roadside(pile: &mut Pile, draw: &mut Draw, side: f64) {
    let edge = ROAD + SIDEWALK;
    let mut z = draw.range(3.0, 9.0);
    while z < 110.0 {
        let depth = draw.range(8.0, 16.0);
        if draw.chance(0.72) {
            let hue = draw.one_of([0.02, 0.06, 0.1, 0.14, 0.55]) + draw.range(-0.02, 0.02);
            let wall = draw.hue(hue, (0.08, 0.45), (0.55, 0.88));
            let glass = vec3(0.06, 0.09, 0.13);
            let pattern = Pattern::Facade { width: draw.range(2.0, 3.0), height: 3.0 };
            let seed = draw.word();
            let material = Material::patterned(wall, glass, pattern).grainy(0.12, seed);
            let width = draw.range(8.0, 11.0);
            let height = 3.0 * (2.0 + draw.pick(4) as f64);
            let setback = draw.range(0.8, 4.0);
            let foot = vec3(side * (edge + setback + 0.5 * width), 0.0, z + 0.5 * depth);
            let extent = vec3(width, height, depth - 0.6);
            pile.cuboid(foot, extent, Turn::NONE, material, Thing::Building);
            let roof = Material::plain(vec3(0.16, 0.07, 0.05));
            let extent = vec3(width + 0.5, 0.35, depth - 0.3);
            let foot = foot + vec3(0.0, height, 0.0);
            pile.cuboid(foot, extent, Turn::NONE, roof, Thing::Building);
        } else {
            let near = vec3(side * (edge + draw.range(1.2, 3.0)), 0.0, z + 2.5);
            tree(pile, draw, near);
            let far = vec3(side * (edge + draw.range(3.0, 6.0)), 0.0, z + depth - 2.5);
            tree(pile, draw, far);
        }
        z += depth;
    }
    let metal = Material::plain(vec3(0.17, 0.18, 0.19)).glossy(0.4);
    for index in 0..3 {
        let foot = vec3(side * (ROAD + 0.3), 0.1, 14.0 + 22.0 * f64::from(index) + 4.0 * side);
        pile.cylinder(foot, 0.08, 5.5, metal, Thing::Pole);
        let arm = foot + vec3(-0.6 * side, 5.4, 0.0);
        pile.cuboid(arm, vec3(1.3, 0.12, 0.2), Turn::NONE, metal, Thing::Pole);
    }
    for _ in 0..draw.pick(3) {
        let foot = vec3(side * (ROAD + draw.range(0.7, 1.7)), 0.18, draw.range(7.0, 30.0));
        person(pile, draw, foot);
    }
    if draw.chance(0.5) {
        let foot = vec3(side * (ROAD + 1.7), 0.18, draw.range(9.0, 20.0));
        let bin = Material::plain(vec3(0.1, 0.3, 0.12)).grainy(0.1, 5);
        pile.cylinder(foot, 0.3, 1.0, bin, Thing::Other);
    }
}

fn tree(pile: &mut Pile, draw: &mut Draw, foot: Vec3) {
    let bark = Material::plain(vec3(0.12, 0.08, 0.05)).grainy(0.4, 9);
    let height = draw.range(2.0, 3.2);
    pile.cylinder(foot, draw.range(0.12, 0.22), height, bark, Thing::Tree);
    let seed = draw.word();
    let hue = draw.range(0.18, 0.3);
    let leaf = draw.hue(hue, (0.45, 0.7), (0.35, 0.55));
    let leaf = Material::patterned(leaf, leaf * 0.45, Pattern::Clouds { period: 0.45 });
    for _ in 0..4 {
        let off = vec3(draw.range(-0.8, 0.8), height + draw.range(0.2, 1.8), draw.range(-0.8, 0.8));
        let radius = draw.range(0.8, 1.4);
        pile.sphere(foot + off, radius, leaf.grainy(0.4, seed), Thing::Tree);
    }
}

fn traffic(pile: &mut Pile, draw: &mut Draw) {
    // Ahead in the own lane, then towards, then parked on the right.
    let mut z = draw.range(9.0, 16.0);
    for _ in 0..2 {
        car(pile, draw, vec3(2.0, SURFACE, z));
        z += draw.range(12.0, 22.0);
    }
    if draw.chance(0.45) {
        let foot = vec3(-2.1, SURFACE, draw.range(16.0, 30.0));
        bus(pile, draw, foot);
    } else {
        let mut z = draw.range(8.0, 16.0);
        for _ in 0..3 {
            car(pile, draw, vec3(-2.0, SURFACE, z));
            z += draw.range(9.0, 18.0);
        }
    }
}

fn wheels(pile: &mut Pile, foot: Vec3, half_width: f64, at: [f64; 2], radius: f64, thing: Thing) {
    let rubber = Material::plain(vec3(0.015, 0.015, 0.017));
    let axis = vec3(1.0, 0.0, 0.0);
    for z in at {
        for x in [-half_width, half_width - 0.2] {
            let base = foot + vec3(x, radius, z);
            pile.add(Shape::Cylinder { base, axis, radius, height: 0.2 }, rubber, thing);
        }
    }
}

fn car(pile: &mut Pile, draw: &mut Draw, foot: Vec3) {
    let paint = draw.any((0.1, 0.9), (0.25, 0.95));
    let paint = Material::plain(paint).glossy(0.8).grainy(0.02, 0);
    let glass = Material::plain(vec3(0.02, 0.03, 0.04)).glossy(0.9).grainy(0.0, 0);
    let at = |y: f64, z: f64| foot + vec3(0.0, y, z);
    pile.cuboid(at(0.28, 0.0), vec3(1.75, 0.58, 4.2), Turn::NONE, paint, Thing::Car);
    pile.cuboid(at(0.86, 0.15), vec3(1.5, 0.46, 2.1), Turn::NONE, glass, Thing::Car);
    pile.cuboid(at(1.32, 0.15), vec3(1.45, 0.06, 1.9), Turn::NONE, paint, Thing::Car);
    let red = Material::plain(vec3(0.6, 0.03, 0.02)).glowing(0.3);
    for x in [-0.68, 0.68] {
        let lamp = at(0.6, -2.1) + vec3(x, 0.0, 0.0);
        pile.cuboid(lamp, vec3(0.3, 0.13, 0.04), Turn::NONE, red, Thing::Car);
    }
    wheels(pile, foot, 0.88, [-1.35, 1.3], 0.32, Thing::Car);
}

fn bus(pile: &mut Pile, draw: &mut Draw, foot: Vec3) {
    let paint = draw.any((0.5, 0.9), (0.6, 0.95));
    let pattern = Pattern::Facade { width: 1.5, height: 1.6 };
    let glass = vec3(0.03, 0.04, 0.05);
    let body = Material::patterned(paint, glass, pattern).glossy(0.5).grainy(0.02, 0);
    let at = foot + vec3(0.0, 0.35, 0.0);
    pile.cuboid(at, vec3(2.4, 2.7, 10.0), Turn::NONE, body, Thing::Bus);
    wheels(pile, foot, 1.22, [-3.4, 3.2], 0.5, Thing::Bus);
}

fn person(pile: &mut Pile, draw: &mut Draw, foot: Vec3) {
    let trousers = Material::plain(draw.any((0.1, 0.5), (0.15, 0.4)));
    let shirt = Material::plain(draw.any((0.4, 0.9), (0.4, 0.9)));
    let skin = Material::plain(draw.hue(0.06, (0.3, 0.45), (0.4, 0.85)));
    for side in [-0.1, 0.1] {
        pile.cylinder(foot + vec3(side, 0.0, 0.0), 0.085, 0.85, trousers, Thing::Person);
    }
    pile.cylinder(foot + vec3(0.0, 0.85, 0.0), 0.22, 0.6, shirt, Thing::Person);
    pile.sphere(foot + vec3(0.0, 1.6, 0.0), 0.14, skin, Thing::Person);
}
