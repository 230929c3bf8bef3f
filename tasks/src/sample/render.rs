//! Scenes and how they become pictures with exact depth and labels.

use super::material::Material;
use super::shape::{Hit, Ray, Shape};
use super::thing::Thing;
use super::vector::{Vec3, vec3};

/// One solid of a scene.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub shape: Shape,
    pub material: Material,
    pub thing: Thing,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Light {
    /// From infinitely far; the unit vector points to it.
    Sun(Vec3),
    /// A point.
    Lamp(Vec3),
}

#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub objects: Vec<Object>,
    pub light: Light,
    pub light_colour: Vec3,
    pub ambient: Vec3,
    /// Colours at the horizon and overhead of what lies behind everything.
    pub sky: (Vec3, Vec3),
    /// Scales the grain of every surface: 1, or 0 for pictures that are stored without loss.
    pub grain: f64,
    /// Two corners of a closed room, which is darker along its edges.
    pub room: Option<(Vec3, Vec3)>,
}

/// A pinhole camera; the principal point is the centre of the picture unless moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Camera {
    eye: Vec3,
    right: Vec3,
    up: Vec3,
    forward: Vec3,
    /// In pixels.
    focal: f64,
    width: usize,
    height: usize,
}

impl Camera {
    /// A camera at `eye` that looks at `target`, with `up` upwards in the picture.
    pub fn look(eye: Vec3, target: Vec3, up: Vec3, focal: f64, size: (usize, usize)) -> Self {
        let forward = (target - eye).unit();
        let right = up.cross(forward).unit();
        let up = forward.cross(right);
        Self { eye, right, up, forward, focal, width: size.0, height: size.1 }
    }

    /// Through pixel coordinates (0.5 is the centre of the first pixel). The direction advances 1
    /// along the optical axis, so that a hit's `t` is its depth in metres.
    fn ray(&self, x: f64, y: f64) -> Ray {
        let x = (x - 0.5 * self.width as f64) / self.focal;
        let y = (0.5 * self.height as f64 - y) / self.focal;
        Ray { origin: self.eye, direction: self.forward + self.right * x + self.up * y }
    }

    /// The rays through a rectangle of pixels.
    fn cone(&self, (left, top): (usize, usize), (right, bottom): (usize, usize)) -> Cone {
        let (left, top) = (left as f64, top as f64);
        let (right, bottom) = (right as f64, bottom as f64);
        let ray = |x, y| self.ray(x, y).direction.unit();
        let axis = ray(0.5 * (left + right), 0.5 * (top + bottom));
        let corners = [ray(left, top), ray(right, top), ray(left, bottom), ray(right, bottom)];
        let cos = corners.iter().map(|corner| corner.dot(axis)).fold(1.0, f64::min);
        Cone { apex: self.eye, axis, cos }
    }
}

/// A rendered scene, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 3]`, 8-bit.
    pub rgb: Vec<u8>,
    /// `[height, width]`, metres along the optical axis; 0 where there is nothing.
    pub depth: Vec<f64>,
    /// `[height, width]`.
    pub things: Vec<Thing>,
}

const SKY: usize = usize::MAX;

/// Side of the squares of pixels that share one list of near solids.
const TILE: usize = 16;

impl Scene {
    /// Renders through the centre of every pixel; outlines are smoothed with four more rays, in
    /// colour only.
    pub fn render(&self, camera: &Camera) -> Picture {
        let (width, height) = (camera.width, camera.height);
        let bounds: Vec<_> = self.objects.iter().map(|object| object.shape.bounds()).collect();
        let mut colours = vec![Vec3::default(); width * height];
        let mut seen = vec![SKY; width * height];
        let mut depth = vec![0.0; width * height];
        for top in (0..height).step_by(TILE) {
            for left in (0..width).step_by(TILE) {
                let (bottom, right) = ((top + TILE).min(height), (left + TILE).min(width));
                let view = camera.cone((left, top), (right, bottom));
                let ahead: Vec<usize> =
                    (0..bounds.len()).filter(|&index| view.meets(&bounds[index])).collect();
                let mut hits = Vec::with_capacity(TILE * TILE);
                for row in top..bottom {
                    for column in left..right {
                        let ray = camera.ray(column as f64 + 0.5, row as f64 + 0.5);
                        hits.push((row * width + column, ray, self.nearest(&ray, &ahead, &bounds)));
                    }
                }
                let blockers = self.blockers(&hits, &bounds);
                for (pixel, ray, hit) in hits {
                    colours[pixel] = self.colour(&ray, camera.focal, hit, &blockers, &bounds);
                    if let Some((index, hit)) = hit {
                        seen[pixel] = index;
                        depth[pixel] = hit.t;
                    }
                }
            }
        }
        self.smooth_outlines(camera, &bounds, &seen, &mut colours);
        Picture {
            width,
            height,
            rgb: colours.iter().flat_map(|&colour| display(colour)).collect(),
            depth,
            things: seen
                .iter()
                .map(|&index| self.objects.get(index).map_or(Thing::Sky, |object| object.thing))
                .collect(),
        }
    }

    fn smooth_outlines(
        &self,
        camera: &Camera,
        bounds: &[Bounds],
        seen: &[usize],
        colours: &mut [Vec3],
    ) {
        let (width, height) = (camera.width, camera.height);
        let all: Vec<usize> = (0..bounds.len()).collect();
        for row in 0..height {
            for column in 0..width {
                let here = seen[row * width + column];
                let differs = |r: usize, c: usize| seen[r * width + c] != here;
                let outline = (row > 0 && differs(row - 1, column))
                    || (column > 0 && differs(row, column - 1))
                    || (row + 1 < height && differs(row + 1, column))
                    || (column + 1 < width && differs(row, column + 1));
                if !outline {
                    continue;
                }
                let mut sum = Vec3::default();
                for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
                    let ray = camera.ray(column as f64 + dx, row as f64 + dy);
                    let hit = self.nearest(&ray, &all, bounds);
                    let colour = self.colour(&ray, camera.focal, hit, &all, bounds);
                    // What is brighter than white would keep an outline hard.
                    sum = sum + vec3(colour.x.min(1.0), colour.y.min(1.0), colour.z.min(1.0));
                }
                colours[row * width + column] = sum * 0.25;
            }
        }
    }

    /// The nearest of some objects along a ray.
    fn nearest(&self, ray: &Ray, among: &[usize], bounds: &[Bounds]) -> Seen {
        let mut nearest: Seen = None;
        for &index in among {
            let limit = nearest.map_or(f64::INFINITY, |(_, hit)| hit.t);
            if passes(ray, &bounds[index])
                && let Some(hit) = self.objects[index].shape.hit(ray, limit)
            {
                nearest = Some((index, hit));
            }
        }
        nearest
    }

    /// The objects that may stand between the light and any of these hits.
    fn blockers(&self, hits: &[(usize, Ray, Seen)], bounds: &[Bounds]) -> Vec<usize> {
        let points = || hits.iter().filter_map(|(_, ray, hit)| hit.map(|(_, hit)| ray.at(hit.t)));
        let count = points().count();
        let sum = points().fold(Vec3::default(), |sum, point| sum + point);
        let middle = sum * (1.0 / count.max(1) as f64);
        let spread = points().map(|point| (point - middle).length()).fold(0.0, f64::max) + 1e-3;
        let (to_light, distance) = self.towards_light(middle);
        let may_block = |index: &usize| {
            let Some((centre, radius)) = bounds[*index] else { return true };
            let to = centre - middle;
            let along = to.dot(to_light).clamp(0.0, distance);
            (to - to_light * along).length() <= radius + spread
        };
        let solid = |index: &usize| self.objects[*index].material.glow == 0.0;
        (0..bounds.len()).filter(solid).filter(may_block).collect()
    }

    /// Depth and thing at a pixel, with every object tried.
    #[cfg(test)]
    pub fn look_at(&self, camera: &Camera, row: usize, column: usize) -> (f64, Thing) {
        let ray = camera.ray(column as f64 + 0.5, row as f64 + 0.5);
        let hits = self
            .objects
            .iter()
            .filter_map(|object| Some((object.shape.hit(&ray, f64::INFINITY)?.t, object.thing)));
        hits.reduce(|best, hit| if hit.0 < best.0 { hit } else { best })
            .unwrap_or((0.0, Thing::Sky))
    }

    fn towards_light(&self, point: Vec3) -> (Vec3, f64) {
        match self.light {
            Light::Sun(direction) => (direction, f64::INFINITY),
            Light::Lamp(lamp) => ((lamp - point).unit(), (lamp - point).length()),
        }
    }

    fn colour(
        &self,
        ray: &Ray,
        focal: f64,
        seen: Seen,
        blockers: &[usize],
        bounds: &[Bounds],
    ) -> Vec3 {
        match seen {
            Some((index, hit)) => {
                let material = &self.objects[index].material;
                self.shade(ray, focal, material, &hit, |shadow, distance| {
                    blockers.iter().any(|&index| {
                        passes(shadow, &bounds[index])
                            && self.objects[index].shape.hit(shadow, distance).is_some()
                    })
                })
            }
            None => {
                let rise = ray.direction.unit().y.clamp(0.0, 1.0);
                self.sky.0.mix(self.sky.1, (rise * 2.5).min(1.0))
            }
        }
    }

    /// `blocked` says whether something stands on a ray nearer than a distance.
    fn shade(
        &self,
        ray: &Ray,
        focal: f64,
        material: &Material,
        hit: &Hit,
        blocked: impl Fn(&Ray, f64) -> bool,
    ) -> Vec3 {
        let point = ray.at(hit.t);
        let view = -ray.direction.unit();
        // A pixel seen at a slant covers more of the surface.
        let slant = view.dot(hit.normal).abs().max(0.15);
        let pixel = hit.t / focal / slant;
        let colour = material.colour(hit.local, hit.local_normal, pixel, self.grain);

        let (to_light, distance) = self.towards_light(point);
        let incidence = hit.normal.dot(to_light);
        let mut lit = 0.0;
        let mut highlight = 0.0;
        let shadow = Ray { origin: point + hit.normal * 1e-4, direction: to_light };
        if incidence > 0.0 && !blocked(&shadow, distance) {
            let fall = if distance.is_finite() { 6.0 / (3.0 + distance * distance) } else { 1.0 };
            lit = incidence * fall;
            let half = (to_light + view).unit().dot(hit.normal).max(0.0);
            let sharp = half * half * half * half;
            let sharp = sharp * sharp * sharp * sharp;
            highlight = material.gloss * sharp * sharp * fall.min(1.0);
        }
        let from_above = 0.75 + 0.25 * hit.normal.y;
        let facing = 0.85 + 0.15 * view.dot(hit.normal).max(0.0);
        let ambient = self.ambient * (from_above * facing * self.openness(point));
        colour.tint(ambient + self.light_colour * lit)
            + self.light_colour * highlight
            + colour * material.glow
    }

    /// How much of a closed room a point sees: less along its edges and in its corners.
    fn openness(&self, p: Vec3) -> f64 {
        let Some((low, high)) = self.room else { return 1.0 };
        let near = |gap: f64| 0.72 + 0.28 * smooth((gap / 0.7).clamp(0.0, 1.0));
        let pairs =
            [(p.x - low.x, high.x - p.x), (p.y - low.y, high.y - p.y), (p.z - low.z, high.z - p.z)];
        pairs.iter().map(|&(a, b)| near(a) * near(b)).product::<f64>() * 1.3
    }
}

type Bounds = Option<(Vec3, f64)>;
/// The object that a ray meets first, and where.
type Seen = Option<(usize, Hit)>;

/// The rays of a tile: all within an angle about one direction.
struct Cone {
    apex: Vec3,
    axis: Vec3,
    cos: f64,
}

impl Cone {
    /// Whether a bounding sphere reaches into the cone.
    fn meets(&self, bounds: &Bounds) -> bool {
        let Some((centre, radius)) = *bounds else { return true };
        let to = centre - self.apex;
        let distance = to.length();
        if radius >= distance {
            return true;
        }
        let sphere_sin = radius / distance;
        let sphere_cos = (1.0 - sphere_sin * sphere_sin).sqrt();
        let sin = (1.0 - self.cos * self.cos).max(0.0).sqrt();
        to.dot(self.axis) >= distance * (self.cos * sphere_cos - sin * sphere_sin) - 1e-9
    }
}

/// Whether a ray's line comes as near as the bounding sphere.
fn passes(ray: &Ray, bounds: &Bounds) -> bool {
    let Some((centre, radius)) = *bounds else { return true };
    let to = centre - ray.origin;
    let along = to.dot(ray.direction);
    let square = ray.direction.dot(ray.direction);
    to.dot(to) * square - along * along <= radius * radius * square
        && (along > 0.0 || to.dot(to) <= radius * radius)
}

fn smooth(x: f64) -> f64 {
    x * x * (3.0 - 2.0 * x)
}

/// Linear colour to 8 bits with gamma 2, whose square root is exact everywhere.
fn display(colour: Vec3) -> [u8; 3] {
    [colour.x, colour.y, colour.z].map(|value| (value.clamp(0.0, 1.0).sqrt() * 255.0 + 0.5) as u8)
}
