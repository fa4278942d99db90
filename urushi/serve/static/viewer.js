// Before and after, which zoom and pan together down to single pixels.

import { bearer } from "./api.js";
import { $, later } from "./words.js";

const TILE = 512;
const SMALLEST = 256;
export const MOST_TRIED = 420000;

const levelsOf = (width, height) => {
  let count = 1;
  for (let w = width, hh = height; Math.max(w, hh) > SMALLEST; count++) {
    w = (w + 1) >> 1;
    hh = (hh + 1) >> 1;
  }
  return count;
};

export class Viewer {
  constructor(onMoved) {
    const options = {
      prefixUrl: "",
      showNavigationControl: false,
      drawer: "canvas",
      animationTime: 0.35,
      maxZoomPixelRatio: 16,
      minZoomImageRatio: 0.8,
      visibilityRatio: 0.6,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      loadTilesWithAjax: true,
      placeholderFillStyle: null,
      keyboardNavEnabled: true,
    };
    this.before = OpenSeadragon({ ...options, element: $("before") });
    this.after = OpenSeadragon({ ...options, element: $("after") });
    this.onMoved = later(0.15, onMoved);
    this.tried = null;
    this.number = 0;
    this.#bind(this.before, this.after);
    this.#bind(this.after, this.before);
    this.before.canvas.setAttribute("aria-label", "The picture before: arrow keys move it, plus and minus zoom");
    this.after.canvas.setAttribute("aria-label", "The picture after: arrow keys move it, plus and minus zoom");
    const slider = $("compare");
    const tell = () => {
      slider.setAttribute("aria-valuenow", Math.round(slider.value));
      slider.setAttribute("aria-valuetext", `${Math.round(slider.value)} % before`);
    };
    slider.addEventListener("slide", tell);
    tell();
  }

  #bind(one, other) {
    one.addHandler("viewport-change", () => {
      if (this.syncing || !one.world.getItemCount() || !other.world.getItemCount()) return;
      this.syncing = true;
      other.viewport.fitBounds(one.viewport.getBounds(true), true);
      this.syncing = false;
      this.#moved();
    });
    one.addHandler("open", () => this.#moved());
  }

  #moved() {
    const scale = this.scale;
    for (const viewer of [this.before, this.after]) viewer.drawer.setImageSmoothingEnabled(scale < 2);
    if (scale) $("zoom").textContent = `${Math.round(scale * 100)} %`;
    this.onMoved();
  }

  // Pixels of the screen for one of the picture.
  get scale() {
    const item = this.before.world.getItemAt(0);
    return item ? item.viewportToImageZoom(this.before.viewport.getZoom(true)) * (window.devicePixelRatio || 1) : 0;
  }

  source(root, query = "") {
    const { width, height } = this.picture;
    const last = levelsOf(width, height) - 1;
    return {
      width, height, tileSize: TILE, tileOverlap: 0, minLevel: 0, maxLevel: last,
      getTileUrl: (level, x, y) => `${root}/tiles/${last - level}/${x}/${y}${query}`,
    };
  }

  // Shows a picture that is kept; `job` is what became of it, if that is known.
  show(picture, job, query) {
    this.picture = picture;
    this.number++;
    this.#forgetTried();
    const root = `/v1/pictures/${picture.id}`;
    for (const viewer of [this.before, this.after]) viewer.setAjaxHeaders?.(bearer(), false);
    this.before.open(this.source(root));
    this.after.open(this.source(job ? `/v1/jobs/${job.id}` : root, job ? query : ""));
    $("after-tag").hidden = !job;
  }

  // Draws the after side anew, without a gap in between.
  redraw(job, query) {
    const number = ++this.number;
    const world = this.after.world;
    const root = job ? `/v1/jobs/${job.id}` : `/v1/pictures/${this.picture.id}`;
    this.#forgetTried();
    $("after-tag").hidden = !job;
    return new Promise((resolve) => {
      this.after.addTiledImage({
        tileSource: this.source(root, job ? query : ""),
        success: ({ item }) => {
          const settle = () => {
            if (number === this.number) {
              while (world.getItemCount() > 1 && world.getItemAt(0) !== item) world.removeItem(world.getItemAt(0));
            } else {
              world.removeItem(item);
            }
            resolve();
          };
          if (item.getFullyLoaded()) settle();
          else item.addOnceHandler("fully-loaded-change", settle);
        },
        error: resolve,
      });
    });
  }

  // What is restored of the visible part, so as to show something within a second: a small version
  // of so many pixels, and then the finest that is tried at all.
  visibleParts(pixels) {
    const [quick, fine] = [this.visible(pixels), this.visible(MOST_TRIED)];
    return quick.level > fine.level ? [quick, fine] : [fine];
  }

  // The visible part: a level, and a box in its pixels, at most so many.
  visible(most) {
    const { width, height } = this.picture;
    const bounds = this.before.viewport.getBounds(true);
    const left = Math.max(0, Math.floor(bounds.x * width));
    const top = Math.max(0, Math.floor(bounds.y * width));
    const right = Math.min(width, Math.ceil((bounds.x + bounds.width) * width));
    const bottom = Math.min(height, Math.ceil((bounds.y + bounds.height) * width));
    let level = 0;
    const last = levelsOf(width, height) - 1;
    const size = (side) => Math.max(1, Math.ceil(side / 2 ** level));
    const fits = () =>
      size(right - left) * size(bottom - top) <= most && Math.max(size(right - left), size(bottom - top)) <= 1024;
    while (!fits() && level < last) level++;
    const factor = 2 ** level;
    const box = { level, left: Math.floor(left / factor), top: Math.floor(top / factor) };
    box.width = Math.max(1, Math.min(1024, Math.ceil(right / factor) - box.left));
    box.height = Math.max(1, Math.min(1024, Math.ceil(bottom / factor) - box.top));
    return box;
  }

  // Lays a part that was tried over the after side.
  lay(blob, box) {
    this.#forgetTried();
    const factor = 2 ** box.level;
    const url = URL.createObjectURL(blob);
    const number = this.number;
    this.after.addSimpleImage({
      url,
      loadTilesWithAjax: false,
      x: (box.left * factor) / this.picture.width,
      y: (box.top * factor) / this.picture.width,
      width: Math.min(box.width * factor, this.picture.width - box.left * factor) / this.picture.width,
      success: ({ item }) => {
        if (number === this.number) this.tried = { item, url };
        else this.after.world.removeItem(item);
      },
    });
    $("after-tag").hidden = false;
  }

  #forgetTried() {
    if (!this.tried) return;
    this.after.world.removeItem(this.tried.item);
    URL.revokeObjectURL(this.tried.url);
    this.tried = null;
  }

  zoom(how) {
    const { viewport } = this.before;
    if (how === "fit") viewport.goHome();
    else if (how === "one") viewport.zoomTo(this.before.world.getItemAt(0).imageToViewportZoom(1 / (window.devicePixelRatio || 1)));
    else viewport.zoomBy(how === "in" ? 1.6 : 1 / 1.6);
    viewport.applyConstraints();
  }
}
