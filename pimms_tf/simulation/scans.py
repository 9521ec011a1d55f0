"""From tissue to a scan: signal, coils, slices, motion and noise, one scan at a time."""

from dataclasses import dataclass

import numpy as np

from pimms_tf.simulation.fields import along_axes, linear_weights, profile_weights, smooth_noise
from pimms_tf.simulation.protocols import Protocol, inversion_recovery, signal
from pimms_tf.simulation.tissues import FATTY, FLUID, INDEX, WHITE

ACROSS = {"axial": 2, "coronal": 1, "sagittal": 0, "volume": 2}  # the axis along which slices follow each other
WORTH_RESAMPLING = 1.35  # voxels this much larger than those of the grid are taken as they are and interpolated


@dataclass(frozen=True, eq=False)
class Body:
    """The head in the scanner: tissue (x, y, z) uint8, its T1, T2, T2*, water and diffusion, all (x, y, z) float32.

    `enhancing` (x, y, z) is how far contrast agent leaks into lesions. Voxels measure `spacing_mm`; `factor` of them
    along each axis make one voxel of the grid that scans are brought to.
    """

    tissue: np.ndarray
    t1_ms: np.ndarray
    t2_ms: np.ndarray
    t2_star_ms: np.ndarray
    water: np.ndarray
    diffusion: np.ndarray
    enhancing: np.ndarray
    spacing_mm: np.ndarray
    factor: tuple[int, int, int]

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        return tuple(n // f for n, f in zip(self.tissue.shape, self.factor, strict=True))


def scan(body: Body, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """The scan (x, y, z) float32, 0 or more, on the grid of the body, in units that differ from scan to scan."""
    brightness = tissue_signal(body, protocol, rng)
    white = float(np.abs(brightness[body.tissue == WHITE].mean())) if (body.tissue == WHITE).any() else 0.1
    brightness *= bias_field(brightness.shape, protocol.bias, rng)
    acquire, bring = _sampling(body, protocol, rng)
    acquired = along_axes(brightness, acquire)
    imaginary = np.zeros(1, np.float32)
    if protocol.motion_mm > 0:
        acquired, imaginary = _moved(acquired, protocol, rng)
    sigma = np.float32(white / protocol.snr)
    acquired = acquired + sigma * rng.standard_normal(acquired.shape, dtype=np.float32)
    imaginary = imaginary + sigma * rng.standard_normal(acquired.shape, dtype=np.float32)
    magnitude = along_axes(np.hypot(acquired, imaginary), bring)
    gain = np.exp(rng.uniform(np.log(60), np.log(1500))) / max(white, 1e-3)
    return np.maximum(magnitude * np.float32(gain), 0)


def tissue_signal(body: Body, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Signed signal (x, y, z) float32 of every voxel before coils and noise, with flow, fat and contrast agent."""
    tissue, p = body.tissue, protocol
    artery, vein = tissue == INDEX["artery"], tissue == INDEX["vein"]
    t1 = body.t1_ms
    if p.contrast == "T1ce":
        shorter = np.ones(len(_AGENT), np.float32)
        shorter[:] = _AGENT
        t1 = t1 * shorter[tissue] * (1 - np.float32(rng.uniform(0.4, 0.7)) * body.enhancing)
    found = signal(t1, body.t2_ms, body.t2_star_ms, body.water, p)
    factor = np.ones(len(_AGENT), np.float32)
    factor[list(FATTY)] = p.fat
    factor[WHITE] = factor[INDEX["cerebellar white matter"]] = p.magnetisation_transfer
    factor[INDEX["brain stem"]] = factor[INDEX["thalamus"]] = (1 + p.magnetisation_transfer) / 2
    if p.sequence in ("gradient echo", "MPRAGE"):
        factor[INDEX["artery"]] = rng.uniform(3, 8) if p.contrast == "TOF" else rng.uniform(0.8, 2.5)
        factor[INDEX["vein"]] = rng.uniform(0.7, 1.3)
    else:
        factor[INDEX["artery"]], factor[INDEX["vein"]] = rng.uniform(0, 0.35), rng.uniform(0.1, 0.8)
    found = found * factor[tissue]
    if p.b_s_mm2:
        found *= np.exp(np.float32(-p.b_s_mm2 * 1e-3) * body.diffusion)
    if p.sequence == "inversion recovery" and p.ti_ms > 1500:
        _add_flow(found, body, p, rng)
    # Vessels of the label map are a voxel wide; what flows in them differs from place to place.
    blood = artery | vein
    found[blood] *= np.exp(0.3 * rng.standard_normal(int(blood.sum()), dtype=np.float32))
    return found


# How much contrast agent shortens T1, tissue by tissue.
_AGENT = np.ones(len(INDEX), np.float32)
for _name, _share in (("artery", 0.2), ("vein", 0.2), ("choroid plexus", 0.4), ("mucosa", 0.5), ("muscle", 0.8)):
    _AGENT[INDEX[_name]] = _share


def _add_flow(found: np.ndarray, body: Body, p: Protocol, rng: np.random.Generator) -> None:
    """Adds the light of fluid that flowed in after the inversion: patches in ventricles and cisterns of FLAIR."""
    amount = rng.uniform(0, 0.5) if rng.random() < 0.6 and p.plane != "volume" else rng.uniform(0, 0.05)
    fluid = body.tissue == FLUID
    patches = np.clip(smooth_noise(found.shape, 5, rng) - np.float32(rng.uniform(0.3, 1.2)), 0, 1.5)[fluid]
    t1, t2 = body.t1_ms[fluid], body.t2_ms[fluid]
    full = body.water[fluid] * np.exp(-p.te_ms / t2)
    nulled = inversion_recovery(t1, t2, body.water[fluid], p.tr_ms, p.te_ms, p.ti_ms)
    found[fluid] += np.float32(amount) * patches * (full - nulled)


def bias_field(shape: tuple[int, int, int], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth positive gain (x, y, z) float32 around 1: exp of random parabolas whose nodes have width `strength`."""
    nodes = strength * rng.standard_normal((3, 3, 3)).astype(np.float32)
    # Values at -1, 0 and 1 of each axis, joined by the parabola through them.
    ends = [np.linspace(-1, 1, n) for n in shape]
    parabolas = [np.stack([t * (t - 1) / 2, 1 - t**2, t * (t + 1) / 2], axis=1).astype(np.float32) for t in ends]
    return np.exp(along_axes(nodes, parabolas))


def _sampling(
    body: Body, protocol: Protocol, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Matrices along each axis: from the body's voxels to acquired ones, and from those to the grid (None: the same).

    Positions are shifted by the part of a millimetre that registration leaves.
    """
    across = ACROSS[protocol.plane]
    acquire, bring = [], []
    for axis, (size, fine_mm, factor) in enumerate(
        zip(body.tissue.shape, body.spacing_mm.tolist(), body.factor, strict=True)
    ):
        grid_mm, num = fine_mm * factor, size // factor
        edge_mm = protocol.thickness_mm + protocol.gap_mm if axis == across else protocol.resolution_mm
        places_mm = (np.arange(num) + 0.5) * grid_mm
        step_mm = grid_mm
        if edge_mm > WORTH_RESAMPLING * grid_mm:
            step_mm = edge_mm
            first = rng.uniform(0, 1) * edge_mm
            acquired_mm = np.arange(first, size * fine_mm + edge_mm / 2, step_mm)
            bring.append(linear_weights((places_mm - first) / step_mm, len(acquired_mm)))
            places_mm = acquired_mm
        else:
            bring.append(None)
        left = rng.normal(0, 0.15) * min(step_mm, 2)
        # A slice has the profile of its pulse, nearly a box; in the plane, and in volumes, the point spread is smooth,
        # and widened by what the steps of a label map lack of the smoothness of real surfaces.
        if axis == across and protocol.plane != "volume":
            box_mm, sigma_mm = protocol.thickness_mm, 0.12 * protocol.thickness_mm
        else:
            box_mm, sigma_mm = 0.0, float(np.hypot(0.42 * edge_mm, 0.4))
        places = (places_mm + left) / fine_mm - 0.5
        acquire.append(profile_weights(places, size, box_mm / fine_mm, sigma_mm / fine_mm))
    return acquire, bring


def _moved(acquired: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary part after the head moved between lines of k-space: ghosts along the phase axis."""
    axis = 0 if ACROSS[protocol.plane] == 1 or rng.random() < 0.3 and ACROSS[protocol.plane] != 0 else 1
    size = acquired.shape[axis]
    jumps = rng.random(size) < 0.04
    place_mm = np.cumsum(jumps * rng.normal(0, protocol.motion_mm, size)) + rng.normal(
        0, 0.1 * protocol.motion_mm, size
    )
    place_mm -= place_mm[size // 2]  # the lines in the middle of k-space say where the head is
    turn = np.fft.ifftshift(np.exp(-2j * np.pi * np.fft.fftshift(np.fft.fftfreq(size)) * place_mm)).astype(np.complex64)
    shape = [1] * 3
    shape[axis] = size
    lines = np.fft.fft(acquired, axis=axis).astype(np.complex64) * turn.reshape(shape)
    image = np.fft.ifft(lines, axis=axis)
    return image.real.astype(np.float32), image.imag.astype(np.float32)
