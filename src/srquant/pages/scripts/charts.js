"use strict";

const MARKS = ["circle", "triangle", "rect", "rectRot", "cross", "crossRot", "star", "circle"];

/** A number for people: so many digits after the point, thousands apart. */
function shown(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Four digits that count, for numbers of any size. */
function brief(value) {
  return value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
}

const seriesColour = (number) => theme.colour(`series-${number % 8}`);

/** The same colour, let through. */
function faded(colour, part) {
  return colour.replace(/^rgba?\(([^)]+)\)$/, (_, parts) => {
    const [r, g, b] = parts.split(/[\s,/]+/);
    return `rgba(${r}, ${g}, ${b}, ${part})`;
  });
}

/** A chart that is drawn anew when colours change; `describe` gives Chart.js's configuration. */
class LivingChart {
  constructor(canvas, describe) {
    this.canvas = canvas;
    this.describe = describe;
    theme.follow(() => this.draw());
  }

  draw() {
    this.chart?.destroy();
    const [ink, soft, line] = ["ink", "soft", "line"].map((name) => theme.colour(name));
    Chart.defaults.color = soft;
    Chart.defaults.borderColor = line;
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 13;
    const made = this.describe({ ink, soft, line });
    this.chart = new Chart(this.canvas, {
      ...made,
      options: { animation: false, responsive: true, maintainAspectRatio: false, ...made.options },
    });
  }
}

/** An axis with a title. */
function axis(title, more = {}) {
  return { title: { display: Boolean(title), text: title }, ...more };
}
