"use strict";

/** The pictures of one scene, decoded when the scene is first shown. */
class Scene {
  constructor(block) {
    this.block = block;
    this.differences = new Map();
  }

  async open() {
    if (this.pictures) return this;
    Object.assign(this, JSON.parse(this.block.textContent));
    this.pictures = await Promise.all(this.pictures.map(async (picture) => {
      const image = new Image();
      image.src = picture.source;
      await image.decode();
      return { ...picture, image };
    }));
    return this;
  }

  /** RGBA bytes of a picture. */
  pixels(number) {
    const picture = this.pictures[number];
    if (!picture.pixels) {
      const canvas = new OffscreenCanvas(this.width, this.height);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(picture.image, 0, 0);
      picture.pixels = context.getImageData(0, 0, this.width, this.height).data;
    }
    return picture.pixels;
  }

  /** Red, green and blue at a place. */
  colour(number, x, y) {
    const start = 4 * (y * this.width + x);
    return [...this.pixels(number).subarray(start, start + 3)];
  }

  /** A canvas with the mean absolute difference of two pictures' colours, so many times, from black through red to white. */
  difference(left, right, gain) {
    const key = [left, right, gain].join();
    if (!this.differences.has(key)) {
      const [a, b] = [this.pixels(left), this.pixels(right)];
      const made = new ImageData(this.width, this.height);
      for (let i = 0; i < a.length; i += 4) {
        const mean = (Math.abs(a[i] - b[i]) + Math.abs(a[i + 1] - b[i + 1]) + Math.abs(a[i + 2] - b[i + 2])) / 3;
        const start = 3 * Math.min(255, Math.round(mean * gain));
        made.data[i] = HEAT[start];
        made.data[i + 1] = HEAT[start + 1];
        made.data[i + 2] = HEAT[start + 2];
        made.data[i + 3] = 255;
      }
      const canvas = new OffscreenCanvas(this.width, this.height);
      canvas.getContext("2d").putImageData(made, 0, 0);
      this.differences.clear(); // one is shown at a time
      this.differences.set(key, canvas);
    }
    return this.differences.get(key);
  }
}

/** Colours of differences, 0 to 255: black, violet, red, orange, white; each lighter than the one before. */
const HEAT = (() => {
  const stops = [[0, 0, 0], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 214]];
  const colours = new Uint8ClampedArray(256 * 3);
  for (let value = 0; value < 256; value += 1) {
    const place = (value / 255) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    stops[below].forEach((first, channel) => {
      colours[3 * value + channel] = first + (place - below) * (stops[below + 1][channel] - first);
    });
  }
  return colours;
})();
