//! The kinds of scene.

mod aerial;
mod object;
mod road;
mod room;

pub(super) use aerial::aerial;
pub(super) use object::{CLASSES, object};
pub(super) use road::road;
pub(super) use room::room;

use super::material::Material;
use super::render::Object;
use super::shape::Shape;
use super::thing::Thing;
use super::vector::{Turn, Vec3, vec3};

const UP: Vec3 = vec3(0.0, 1.0, 0.0);

/// Objects under construction.
#[derive(Default)]
struct Pile {
    objects: Vec<Object>,
}

impl Pile {
    fn add(&mut self, shape: Shape, material: Material, thing: Thing) {
        self.objects.push(Object { shape, material, thing });
    }

    fn plane(&mut self, point: Vec3, normal: Vec3, material: Material, thing: Thing) {
        self.add(Shape::Plane { point, normal }, material, thing);
    }

    /// A box that stands on `foot` (the middle of its underside), with full sizes.
    fn cuboid(&mut self, foot: Vec3, size: Vec3, turn: Turn, material: Material, thing: Thing) {
        let centre = foot + vec3(0.0, 0.5 * size.y, 0.0);
        self.add(Shape::Cuboid { centre, half: size * 0.5, turn }, material, thing);
    }

    fn sphere(&mut self, centre: Vec3, radius: f64, material: Material, thing: Thing) {
        self.add(Shape::Sphere { centre, radius }, material, thing);
    }

    fn cylinder(&mut self, base: Vec3, radius: f64, height: f64, material: Material, thing: Thing) {
        self.add(Shape::Cylinder { base, axis: UP, radius, height }, material, thing);
    }
}
