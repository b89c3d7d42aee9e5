"use strict";

const WHEEL_FACTOR = 1.0018;

/** Where fingers, the mouse and the wheel move and zoom a view. */
class Stage {
  /**
   * `host` gives `view` and `canvas` (the one that a point of the screen lies in), and is told by `changed`.
   */
  constructor(element, host) {
    [this.element, this.host] = [element, host];
    this.fingers = new Map();
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, (event) => this.up(event));
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("dblclick", (event) => {
      host.view.step(1, host.canvasAt(event), this.point(event));
      host.changed();
    });
  }

  /** A place on the screen, in pixels of a canvas. */
  point(event, canvas = this.host.canvasAt(event)) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  }

  down(event) {
    if (event.target.closest(".divider") || event.button > 0) return;
    this.element.setPointerCapture(event.pointerId);
    if (!this.fingers.size) this.canvas = this.host.canvasAt(event); // by which all fingers go until the last is up
    this.fingers.set(event.pointerId, this.point(event, this.canvas));
    this.element.classList.add("moving");
  }

  moved(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) {
      this.host.pointed(event, this.point(event));
      return;
    }
    const { canvas } = this;
    const { view } = this.host;
    const now = this.point(event, canvas);
    if (this.fingers.size === 2) {
      const other = [...this.fingers].find(([id]) => id !== event.pointerId)[1];
      const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
      const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
      view.zoomTo((view.zoom * apart(now, other)) / Math.max(apart(before, other), 1), canvas, middle);
      view.move((now[0] - before[0]) / 2 / view.zoom, (now[1] - before[1]) / 2 / view.zoom, canvas);
    } else {
      view.move((now[0] - before[0]) / view.zoom, (now[1] - before[1]) / view.zoom, canvas);
    }
    this.fingers.set(event.pointerId, now);
    this.host.changed();
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size) this.element.classList.remove("moving");
  }

  wheel(event) {
    if (!event.ctrlKey && !this.element.contains(document.activeElement)) return; // the page scrolls
    event.preventDefault();
    const { view } = this.host;
    const lines = event.deltaMode === 1 ? 16 : 1;
    view.zoomTo(view.zoom * WHEEL_FACTOR ** (-event.deltaY * lines), this.host.canvasAt(event), this.point(event));
    this.host.changed();
  }
}
