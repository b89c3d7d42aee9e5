"use strict";

const LARGEST_ZOOM = 32;

/**
 * Which part of a scene is seen, in all of its pictures alike: the picture pixel in the middle, and how many pixels of
 * the screen each picture pixel takes.
 */
class View {
  constructor(width, height) {
    [this.width, this.height] = [width, height];
    [this.x, this.y, this.zoom] = [width / 2, height / 2, 1];
  }

  /** The zoom at which a canvas of a size holds the whole picture; whole numbers where pictures are enlarged. */
  whole(canvas) {
    const zoom = Math.min(canvas.width / this.width, canvas.height / this.height);
    return zoom > 1 ? Math.min(Math.floor(zoom), LARGEST_ZOOM) : zoom;
  }

  fit(canvas) {
    [this.x, this.y, this.zoom] = [this.width / 2, this.height / 2, this.whole(canvas)];
  }

  /** Show a square: left, top and size; no larger than is needed to see its pixels. */
  show([left, top, size], canvas) {
    const zoom = Math.min(canvas.width, canvas.height) / size;
    const most = 4 * (window.devicePixelRatio || 1);
    this.zoom = Math.min(Math.max(zoom > 1 ? Math.floor(zoom) : zoom, this.whole(canvas)), Math.max(most, this.whole(canvas)), LARGEST_ZOOM);
    [this.x, this.y] = [left + size / 2, top + size / 2];
    this.settle(canvas);
  }

  /** Zoom and keep what lies under a point of the canvas, in screen pixels, where it is. */
  zoomTo(zoom, canvas, [px, py] = [canvas.width / 2, canvas.height / 2]) {
    const before = this.at(px, py, canvas);
    const least = Math.min(this.whole(canvas), 1);
    this.zoom = Math.min(Math.max(zoom, least), LARGEST_ZOOM);
    const after = this.at(px, py, canvas);
    this.move(after[0] - before[0], after[1] - before[1], canvas);
  }

  /** One step in or out: the next power of two. */
  step(direction, canvas, point) {
    const power = Math.log2(this.zoom);
    const next = direction > 0 ? Math.floor(power + 1e-6) + 1 : Math.ceil(power - 1e-6) - 1;
    this.zoomTo(2 ** next, canvas, point);
  }

  /** Move the picture by so many picture pixels. */
  move(dx, dy, canvas) {
    this.x -= dx;
    this.y -= dy;
    this.settle(canvas);
  }

  /** The picture's coordinates at a point of the canvas. */
  at(px, py, canvas) {
    return [this.x + (px - canvas.width / 2) / this.zoom, this.y + (py - canvas.height / 2) / this.zoom];
  }

  /** Keep the picture in sight: no empty space where there could be picture; in the middle where it is smaller. */
  settle(canvas) {
    const kept = (middle, length, seen) => (seen >= length ? length / 2 : Math.min(Math.max(middle, seen / 2), length - seen / 2));
    this.x = kept(this.x, this.width, canvas.width / this.zoom);
    this.y = kept(this.y, this.height, canvas.height / this.zoom);
  }

  /** Draw a picture on a canvas, onto whole pixels of the screen; `from` and `to` bound the columns that are drawn. */
  draw(context, picture, from = 0, to = context.canvas.width) {
    const canvas = context.canvas;
    if (to <= from) return;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, canvas.height);
    context.clip();
    context.imageSmoothingEnabled = this.zoom < 1;
    context.imageSmoothingQuality = "high";
    const left = Math.round(canvas.width / 2 - this.x * this.zoom);
    const top = Math.round(canvas.height / 2 - this.y * this.zoom);
    context.drawImage(picture, left, top, this.width * this.zoom, this.height * this.zoom);
    context.restore();
  }
}
