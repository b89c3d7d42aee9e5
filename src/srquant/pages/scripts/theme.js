"use strict";

/** Light and dark: what the reader's system prefers, until the button is used. */
const theme = {
  listeners: [],

  /** Whether the page is dark now. */
  get dark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  },

  /** A colour of the style sheet, as the page has it now. */
  colour(name) {
    if (!this.probe) {
      this.probe = document.createElement("span");
      this.probe.className = "probe";
      document.body.append(this.probe);
    }
    this.probe.style.color = `var(--${name})`;
    return getComputedStyle(this.probe).color;
  },

  /** Call something now, and again whenever colours change. */
  follow(draw) {
    this.listeners.push(draw);
    draw();
  },

  changed() {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.textContent = this.dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to ${this.dark ? "light" : "dark"} colours`);
    for (const draw of this.listeners) draw();
  },

  start() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.changed());
    document.getElementById("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = this.dark ? "light" : "dark";
      this.changed();
    });
    this.changed();
  },
};

/** What a data block of the page holds; null if it is not there. */
function dataOf(id) {
  const block = document.getElementById(id);
  return block ? JSON.parse(block.textContent) : null;
}
