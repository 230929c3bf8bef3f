//! One main object on a floor in front of a wall: pictures for classification.

use super::{Pile, UP};
use crate::sample::draw::Draw;
use crate::sample::material::{Material, Pattern};
use crate::sample::render::{Camera, Light, Scene};
use crate::sample::shape::Shape;
use crate::sample::thing::Thing;
use crate::sample::vector::{Vec3, vec3};

/// Number of classes: four shapes, each with two patterns.
pub(in crate::sample) const CLASSES: usize = 8;

/// A scene of a class (`0..CLASSES`). Shape and pattern decide the class; its colours only lean to
/// it, and wall, floor, light, camera and the smaller objects around are free.
pub(in crate::sample) fn object(
    draw: &mut Draw,
    class: usize,
    size: (usize, usize),
) -> (Scene, Camera) {
    let mut pile = Pile::default();

    let wall = draw.any((0.05, 0.45), (0.35, 0.9));
    let wall_depth = draw.range(1.4, 2.6);
    let wall_pattern = match draw.pick(3) {
        0 => Pattern::Bricks { length: 0.5, height: 0.2 },
        1 => Pattern::Clouds { period: 0.8 },
        _ => Pattern::Stripes { axis: 0, period: draw.range(0.3, 0.7) },
    };
    let wall = Material::patterned(wall, wall * draw.range(0.55, 0.8), wall_pattern);
    let seed = draw.word();
    let lean = draw.turn(0.25);
    let towards = -lean.apply(vec3(0.0, 0.0, 1.0));
    pile.plane(vec3(0.0, 0.0, wall_depth), towards, wall.grainy(0.12, seed), Thing::Wall);

    let floor = draw.any((0.1, 0.5), (0.3, 0.8));
    let floor_pattern = match draw.pick(3) {
        0 => Pattern::Planks { width: 0.22, length: 1.7 },
        1 => Pattern::Clouds { period: 0.5 },
        _ => Pattern::Bricks { length: 0.6, height: 0.6 },
    };
    let floor = Material::patterned(floor, floor * draw.range(0.45, 0.75), floor_pattern);
    let seed = draw.word();
    pile.plane(Vec3::default(), UP, floor.grainy(0.2, seed).glossy(0.1), Thing::Floor);

    let height = draw.range(0.7, 1.25);
    let spot = vec3(draw.range(-0.22, 0.22), 0.0, draw.range(-0.15, 0.25));
    let material = class_material(draw, class, height);
    place(&mut pile, draw, class / 2, spot, height, material);

    for _ in 0..draw.pick(4) {
        let side = draw.one_of([-1.0, 1.0]);
        let small = draw.range(0.18, 0.42);
        let spot =
            vec3(spot.x + side * draw.range(0.75, 1.4), 0.0, draw.range(-0.35, wall_depth - 0.7));
        let first = draw.any((0.2, 0.8), (0.3, 0.9));
        let shape = draw.pick(4);
        place(&mut pile, draw, shape, spot, small, Material::plain(first).glossy(0.3));
    }

    let target = vec3(spot.x + draw.range(-0.22, 0.22), height * draw.range(0.38, 0.6), spot.z);
    let around = draw.turn(0.3);
    let eye = target + around.apply(vec3(0.0, draw.range(0.15, 1.1), -draw.range(1.9, 3.0)));
    let focal = size.0.min(size.1) as f64 * 1.15;
    let lamp = vec3(draw.range(-2.2, 2.2), draw.range(2.0, 3.2), draw.range(-2.4, -0.8));
    let warm = draw.range(0.0, 0.25);
    let scene = Scene {
        objects: pile.objects,
        light: Light::Lamp(lamp),
        light_colour: vec3(1.0, 1.0 - 0.4 * warm, 1.0 - warm) * draw.range(0.75, 1.25),
        ambient: vec3(1.0, 1.0, 1.0) * draw.range(0.36, 0.56),
        sky: (vec3(0.6, 0.7, 0.8), vec3(0.3, 0.45, 0.7)),
        grain: 1.0,
        room: None,
    };
    (scene, Camera::look(eye, target, UP, focal, size))
}

fn class_material(draw: &mut Draw, class: usize, height: f64) -> Material {
    let hue = class as f64 / CLASSES as f64 + draw.range(-0.2, 0.2);
    let first = draw.hue(hue, (0.45, 0.9), (0.55, 0.95));
    let contrast = draw.range(0.0, 1.0);
    let second = if draw.chance(0.6) {
        vec3(0.85, 0.85, 0.8) * (0.6 + 0.4 * contrast)
    } else {
        first * (0.1 + 0.2 * contrast)
    };
    let fine = height * draw.range(0.85, 1.2);
    // Each shape has two of the three patterns.
    let pattern = match class {
        0 | 3 | 5 => Pattern::Stripes { axis: 1, period: 0.3 * fine },
        1 | 4 | 6 => Pattern::Checks { period: 0.42 * fine },
        _ => Pattern::Dots { period: 0.26 * fine },
    };
    let seed = draw.word();
    Material::patterned(first, second, pattern).glossy(0.45).grainy(0.05, seed)
}

/// Puts a solid of a height on the floor: ball, box, can or cone.
fn place(
    pile: &mut Pile,
    draw: &mut Draw,
    shape: usize,
    foot: Vec3,
    height: f64,
    material: Material,
) {
    let thing = Thing::Other;
    match shape {
        0 => {
            let radius = 0.5 * height;
            pile.sphere(foot + vec3(0.0, radius, 0.0), radius, material, thing);
        }
        1 => {
            let size =
                vec3(height * draw.range(0.7, 1.0), height * 0.9, height * draw.range(0.7, 1.0));
            let turn = draw.turn(0.4);
            pile.cuboid(foot, size, turn, material, thing);
        }
        2 => {
            let radius = height * draw.range(0.26, 0.36);
            pile.cylinder(foot, radius, height, material, thing);
        }
        _ => {
            let radius = height * draw.range(0.4, 0.55);
            let height = 1.1 * height;
            pile.add(Shape::Cone { base: foot, axis: UP, radius, height }, material, thing);
        }
    }
}
