// The slide, and over it what is drawn in the slide's own pixels: values of tiles, the tissue's outline, a picked tile.
//
// Values are a picture of one pixel a tile. It is enlarged here, and only the part in sight, so that a slide of a
// hundred thousand tiles costs no more than one of ten.

import { piece } from "./api.js";

const OUTLINE = ["#ffffff", "#000000"]; // one of them can be seen on any stain
const NICE = [1, 2, 5];

export class Stage {
  constructor(picked) {
    this.element = document.getElementById("stage");
    this.canvas = document.createElement("canvas");
    this.canvas.id = "overlay";
    this.context = this.canvas.getContext("2d");
    this.scalebar = document.getElementById("scalebar");
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.picture = null;
    this.layer = null;
    this.outline = null;
    this.tile = null;
    this.strength = 0.6;
    this.showLayer = true;
    this.showOutline = true;
    this.viewer = OpenSeadragon({
      element: document.getElementById("slide"),
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorSizeRatio: 0.16,
      keyboardNavEnabled: false,
      drawer: "canvas",
      animationTime: this.still ? 0 : 0.4,
      blendTime: 0,
      maxZoomPixelRatio: 4,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.2,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
      imageLoaderLimit: 6,
      preserveImageSizeOnResize: true,
      tabIndex: 0,
    });
    this.viewer.canvas.append(this.canvas); // under the small map, which lies beside
    this.viewer.canvas.setAttribute("role", "img");
    this.viewer.addHandler("update-viewport", () => this.draw());
    this.viewer.addHandler("resize", () => this.draw());
    this.viewer.addHandler("canvas-click", (event) => {
      if (!event.quick || !this.picture || this.viewer.world.getItemCount() === 0) return;
      const at = this.viewer.viewport.viewerElementToImageCoordinates(event.position);
      picked(at.x, at.y);
    });
  }

  // Shows a slide; settles once it is there. Without a picture the stage is empty.
  open(slide) {
    this.picture = slide.picture;
    this.layer = this.outline = this.tile = null;
    this.viewer.canvas.setAttribute("aria-label", `Slide ${slide.slide_id}`);
    this.element.dataset.loaded = "false";
    if (!slide.picture) {
      this.viewer.close();
      this.element.dataset.loaded = "true";
      this.draw();
      return Promise.resolve();
    }
    const { width, height, side, levels } = slide.picture;
    return new Promise((done, failed) => {
      this.viewer.addOnceHandler("open", () => {
        const item = this.viewer.world.getItemAt(0);
        item.addHandler("fully-loaded-change", (event) => (this.element.dataset.loaded = String(event.fullyLoaded)));
        done();
      });
      this.viewer.addOnceHandler("open-failed", (event) => failed(new Error(event.message)));
      this.viewer.open({
        width, height, tileSize: side, tileOverlap: 0, minLevel: Math.min(8, levels), maxLevel: levels,
        getTileUrl: (level, x, y) => piece(slide.slide_id, level, x, y),
      });
    });
  }

  async setLayer(layer) {
    this.layer = layer && { area: layer.area, columns: layer.columns, rows: layer.rows, bitmap: await bitmapOf(layer) };
    this.draw();
  }

  setOutline(polygons) {
    const path = new Path2D();
    for (const polygon of polygons) {
      for (const ring of polygon) {
        ring.forEach(([x, y], place) => (place ? path.lineTo(x, y) : path.moveTo(x, y)));
        path.closePath();
      }
    }
    this.outline = path;
    this.draw();
  }

  setTile(area) {
    this.tile = area;
    this.draw();
  }

  // Brings an area (x, y, width, height) into sight, with what is around it.
  goTo([x, y, width, height]) {
    const around = 5 * Math.max(width, height);
    const box = new OpenSeadragon.Rect(x + width / 2 - around, y + height / 2 - around, 2 * around, 2 * around);
    this.viewer.viewport.fitBounds(this.viewer.world.getItemAt(0).imageToViewportRectangle(box), this.still);
  }

  centre() {
    const viewport = this.viewer.viewport;
    return viewport.viewportToImageCoordinates(viewport.getCenter());
  }

  whole() {
    this.viewer.viewport.goHome(this.still);
  }

  pan(x, y) {
    const viewport = this.viewer.viewport;
    const bounds = viewport.getBounds();
    viewport.panBy(new OpenSeadragon.Point((x * bounds.width) / 8, (y * bounds.height) / 8), this.still);
    viewport.applyConstraints(this.still);
  }

  zoom(by) {
    this.viewer.viewport.zoomBy(by, null, this.still);
    this.viewer.viewport.applyConstraints(this.still);
  }

  // How many pixels of the screen one of the slide has, and where its corner is.
  frame() {
    if (!this.picture || this.viewer.world.getItemCount() === 0) return null;
    const item = this.viewer.world.getItemAt(0);
    const corner = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const end = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(this.picture.width, this.picture.height));
    return { x: corner.x, y: corner.y, scale: (end.x - corner.x) / this.picture.width };
  }

  draw() {
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.element;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = this.context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const frame = this.frame();
    this.drawScalebar(frame);
    // Under values the slide is grey: its own colours would change theirs.
    this.element.classList.toggle("valued", Boolean(this.layer && this.showLayer));
    if (!frame) return;
    const at = { x: frame.x * ratio, y: frame.y * ratio, scale: frame.scale * ratio };
    if (this.layer && this.showLayer) this.drawLayer(at);
    if (this.outline && this.showOutline) this.drawOutline(at, ratio);
    if (this.tile) this.drawTile(at, ratio);
  }

  drawLayer(at) {
    const { area, columns, rows, bitmap } = this.layer;
    const cell = [(area[2] / columns) * at.scale, (area[3] / rows) * at.scale];
    const start = [at.x + area[0] * at.scale, at.y + area[1] * at.scale];
    const first = [0, 1].map((axis) => Math.max(0, Math.floor(-start[axis] / cell[axis])));
    const size = [this.canvas.width, this.canvas.height];
    const last = [columns, rows].map((count, axis) => Math.min(count, Math.ceil((size[axis] - start[axis]) / cell[axis])));
    const count = [last[0] - first[0], last[1] - first[1]];
    if (count[0] <= 0 || count[1] <= 0) return;
    this.context.globalAlpha = this.strength;
    this.context.imageSmoothingEnabled = cell[0] < 1; // smaller than a pixel of the screen: their mean is seen
    this.context.drawImage(
      bitmap, first[0], first[1], count[0], count[1],
      start[0] + first[0] * cell[0], start[1] + first[1] * cell[1], count[0] * cell[0], count[1] * cell[1],
    );
    this.context.globalAlpha = 1;
  }

  drawOutline(at, ratio) {
    const context = this.context;
    context.setTransform(at.scale, 0, 0, at.scale, at.x, at.y);
    context.lineJoin = "round";
    [3.5, 1.5].forEach((width, place) => {
      context.lineWidth = (width * ratio) / at.scale;
      context.strokeStyle = OUTLINE[place];
      context.stroke(this.outline);
    });
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  drawTile(at, ratio) {
    const [x, y, width, height] = this.tile;
    const box = [at.x + x * at.scale, at.y + y * at.scale, width * at.scale, height * at.scale];
    const least = 10 * ratio; // so that it is found on a whole slide
    for (const axis of [0, 1]) {
      if (box[axis + 2] >= least) continue;
      box[axis] -= (least - box[axis + 2]) / 2;
      box[axis + 2] = least;
    }
    [[5, "#000000"], [2.5, "#f0e442"]].forEach(([line, colour]) => {
      this.context.lineWidth = line * ratio;
      this.context.strokeStyle = colour;
      this.context.strokeRect(...box);
    });
  }

  drawScalebar(frame) {
    const mpp = frame && this.picture.mpp && this.picture.kind !== "sheet" ? this.picture.mpp[0] : 0;
    this.scalebar.hidden = !mpp;
    if (!mpp) return;
    const most = (140 / frame.scale) * mpp; // microns
    const power = 10 ** Math.floor(Math.log10(most));
    const length = power * NICE.filter((step) => step * power <= most).pop();
    this.scalebar.style.width = `${(length / mpp) * frame.scale}px`;
    this.scalebar.firstElementChild.textContent = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
  }
}

async function bitmapOf(layer) {
  const bytes = Uint8Array.from(atob(layer.picture), (sign) => sign.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }), { premultiplyAlpha: "premultiply" });
}
