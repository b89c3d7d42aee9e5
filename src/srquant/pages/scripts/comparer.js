"use strict";

/** Any two pictures of a scene under a slider, all of them side by side, or the difference of two. */
class Comparer {
  constructor(root) {
    this.scenes = [...document.querySelectorAll("script.scene")].map((block) => new Scene(block));
    const part = (id) => document.getElementById(id);
    this.parts = {
      stage: part("stage"), canvas: part("stage-picture"), grid: part("stage-grid"), divider: part("divider"),
      left: part("left-picture"), right: part("right-picture"), swap: part("swap"), gain: part("gain"),
      level: part("zoom-level"), labels: [part("label-left"), part("label-right")], legend: part("difference-legend"),
      most: part("difference-most"), facts: part("scene-facts"), pixel: part("pixel-facts"),
    };
    this.root = root;
    this.mode = "slider";
    this.divided = 0.5;
    this.cells = [];
    this.listen();
    this.paintScale();
  }

  async start() {
    new ResizeObserver(() => this.resized()).observe(this.parts.stage);
    await this.choose(0);
  }

  /** Show a scene; pictures stay chosen where it has pictures of the same titles. */
  async choose(number) {
    const scene = await this.scenes[number].open();
    const titles = scene.pictures.map((picture) => picture.title);
    const before = this.scene ? [this.left, this.right].map((each) => titles.indexOf(this.scene.pictures[each].title)) : [-1, -1];
    this.left = before[0] >= 0 ? before[0] : scene.left;
    this.right = before[1] >= 0 ? before[1] : scene.right;
    this.scene = scene;
    for (const select of [this.parts.left, this.parts.right]) {
      select.replaceChildren(...scene.pictures.map((picture, place) => new Option(named(picture), place)));
    }
    this.view = new View(scene.width, scene.height);
    this.buildGrid();
    this.resized();
    this.view.show(scene.region, this.mainCanvas);
    this.changed();
  }

  /** The canvas that zoom buttons and keys go by. */
  get mainCanvas() {
    return this.mode === "all" ? this.cells[0].canvas : this.parts.canvas;
  }

  canvasAt(event) {
    return (this.mode === "all" && event.target.closest?.(".cell")?.querySelector("canvas")) || this.mainCanvas;
  }

  listen() {
    const { stage, divider, left, right, swap, gain } = this.parts;
    new Stage(stage, this);
    this.root.addEventListener("change", async (event) => {
      if (event.target.name === "scene") await this.choose(Number(event.target.value));
      if (event.target.name === "mode") this.setMode(event.target.value);
      if (event.target === left || event.target === right) {
        [this.left, this.right] = [Number(left.value), Number(right.value)];
      }
      this.changed();
    });
    gain.addEventListener("change", () => this.changed());
    swap.addEventListener("click", () => this.swapped());
    const zooms = {
      "zoom-in": () => this.view.step(1, this.mainCanvas),
      "zoom-out": () => this.view.step(-1, this.mainCanvas),
      "zoom-one": () => this.view.zoomTo(1, this.mainCanvas),
      "zoom-fit": () => this.view.fit(this.mainCanvas),
      "zoom-region": () => this.view.show(this.scene.region, this.mainCanvas),
    };
    for (const [id, act] of Object.entries(zooms)) {
      document.getElementById(id).addEventListener("click", () => { act(); this.changed(); });
    }
    stage.addEventListener("keydown", (event) => this.pressed(event, zooms));
    stage.addEventListener("pointerleave", () => { this.parts.pixel.replaceChildren(); });
    divider.addEventListener("pointerdown", (event) => { divider.setPointerCapture(event.pointerId); event.stopPropagation(); });
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const box = stage.getBoundingClientRect();
      this.divide((event.clientX - box.left) / box.width);
    });
  }

  pressed(event, zooms) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = (event.shiftKey ? 0.5 : 0.12) * Math.min(this.mainCanvas.width, this.mainCanvas.height) / this.view.zoom;
    const onDivider = event.target === this.parts.divider;
    const dividing = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 };
    const moving = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] };
    const acts = {
      "+": zooms["zoom-in"], "=": zooms["zoom-in"], "-": zooms["zoom-out"], 0: zooms["zoom-fit"], 1: zooms["zoom-one"], r: zooms["zoom-region"],
      x: () => this.swapped(), s: () => this.setMode("slider"), a: () => this.setMode("all"), d: () => this.setMode("difference"),
      ",": () => this.next("right", -1), ".": () => this.next("right", 1), "<": () => this.next("left", -1), ">": () => this.next("left", 1),
    };
    const act = acts[event.key.toLowerCase()];
    if (onDivider && event.key in dividing) this.divide(this.divided + dividing[event.key]);
    else if (event.key in moving) this.view.move(...moving[event.key], this.mainCanvas);
    else if (act) act();
    else return;
    event.preventDefault();
    this.changed();
  }

  next(side, step) {
    const count = this.scene.pictures.length;
    this[side] = (this[side] + step + count) % count;
  }

  swapped() {
    [this.left, this.right] = [this.right, this.left];
    this.changed();
  }

  divide(part) {
    this.divided = Math.min(Math.max(part, 0), 1);
    this.changed();
  }

  setMode(mode) {
    const keepsZoom = this.mode === mode;
    this.mode = mode;
    this.root.querySelector(`input[name=mode][value=${mode}]`).checked = true;
    this.resized();
    if (!keepsZoom) this.view.settle(this.mainCanvas);
  }

  /** One cell a picture, in as square a raster as the stage's shape allows. */
  buildGrid() {
    this.cells = this.scene.pictures.map((picture, number) => {
      const box = document.createElement("div");
      box.className = "cell";
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", named(picture));
      const label = document.createElement("span");
      label.className = "label";
      label.textContent = named(picture);
      box.append(canvas, label);
      return { box, canvas, number };
    });
    this.parts.grid.replaceChildren(...this.cells.map((cell) => cell.box));
  }

  /** Give every canvas as many pixels as the screen has there. */
  resized() {
    if (!this.scene) return;
    const { stage, canvas, grid, divider, labels } = this.parts;
    const all = this.mode === "all";
    grid.hidden = !all;
    canvas.hidden = all;
    divider.hidden = this.mode !== "slider";
    labels.forEach((label) => { label.hidden = all; });
    if (all) {
      const count = this.cells.length;
      const shape = stage.clientWidth / stage.clientHeight;
      let columns = Math.min(count, Math.max(1, Math.round(Math.sqrt(count * shape))));
      columns = Math.ceil(count / Math.ceil(count / columns)); // no emptier last row than need be
      grid.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
      grid.style.gridTemplateRows = `repeat(${Math.ceil(count / columns)}, 1fr)`;
    }
    for (const each of [canvas, ...this.cells.map((cell) => cell.canvas)]) {
      const box = each.getBoundingClientRect();
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [Math.max(Math.round(box.width * ratio), 1), Math.max(Math.round(box.height * ratio), 1)];
      if (each.width !== width || each.height !== height) [each.width, each.height] = [width, height];
    }
    this.view.settle(this.mainCanvas);
    this.changed();
  }

  /** Draw once, before the next frame. */
  changed() {
    if (this.waiting || !this.scene) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    const { canvas, left, right, labels, divider, level, legend, most, gain, facts, stage } = this.parts;
    const [one, other] = [this.scene.pictures[this.left], this.scene.pictures[this.right]];
    const percent = Math.round(100 * this.divided);
    [left.value, right.value] = [this.left, this.right];
    [labels[0].textContent, labels[1].textContent] = [named(one), named(other)];
    level.textContent = `${Math.round(100 * this.view.zoom)} %`;
    legend.hidden = this.mode !== "difference";
    gain.closest("label").hidden = this.mode !== "difference";
    divider.style.left = `${percent}%`;
    divider.setAttribute("aria-valuenow", percent);
    divider.setAttribute("aria-valuetext", `${percent} % ${one.title}, ${100 - percent} % ${other.title}`);
    stage.classList.toggle("whole", this.view.zoom <= this.view.whole(this.mainCanvas));
    facts.textContent = `${this.scene.name}, ${this.scene.width}×${this.scene.height}, stored ${this.scene.storage}`;
    if (this.mode === "all") {
      for (const cell of this.cells) {
        const context = cleared(cell.canvas);
        this.view.draw(context, this.scene.pictures[cell.number].image);
      }
      return;
    }
    const context = cleared(canvas);
    if (this.mode === "difference") {
      const times = Number(gain.value);
      this.view.draw(context, this.scene.difference(this.left, this.right, times));
      most.textContent = `${Math.round(255 / times)} of 255 and more`;
      canvas.setAttribute("aria-label", `Difference between ${one.title} and ${other.title} of ${this.scene.name}, ${times} times`);
      return;
    }
    const cut = Math.round((percent / 100) * canvas.width);
    this.view.draw(context, one.image, 0, cut);
    this.view.draw(context, other.image, cut, canvas.width);
    canvas.setAttribute("aria-label", `${this.scene.name}: ${named(one)} on the left, ${named(other)} on the right`);
  }

  /** Say the colours under the mouse. */
  pointed(event, [px, py]) {
    if (!this.scene || event.pointerType === "touch") return;
    const [x, y] = this.view.at(px, py, this.canvasAt(event)).map(Math.floor);
    const inside = x >= 0 && y >= 0 && x < this.scene.width && y < this.scene.height;
    if (!inside) { this.parts.pixel.replaceChildren(); return; }
    const said = [this.left, this.right].flatMap((number) => {
      const colour = this.scene.colour(number, x, y);
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = `rgb(${colour.join()})`;
      return [" · ", swatch, ` ${this.scene.pictures[number].title} ${colour.join(" ")}`];
    });
    this.parts.pixel.replaceChildren(`x ${x}, y ${y}`, ...said);
  }

  paintScale() {
    const context = document.getElementById("difference-scale").getContext("2d");
    const row = new ImageData(256, 1);
    for (let value = 0; value < 256; value += 1) {
      row.data.set([...HEAT.subarray(3 * value, 3 * value + 3), 255], 4 * value);
    }
    context.putImageData(row, 0, 0);
  }
}

/** Title and score. */
function named(picture) {
  return picture.note ? `${picture.title} · ${picture.note}` : picture.title;
}

/** A canvas's context, with nothing on it. */
function cleared(canvas) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  return context;
}
