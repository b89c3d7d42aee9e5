"use strict";

/** Headings of tables sort by their column: the good end first, then the other one. */
function makeSortable(table) {
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, number) => {
    if (number === 0) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = heading.dataset.first || "descending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      for (const each of headings) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => {
        const text = row.cells[number].dataset.value;
        return text === undefined ? null : text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text);
      };
      const rows = [...body.rows].sort((one, another) => {
        const [a, b] = [value(one), value(another)];
        if (a === null || b === null) return (a === null) - (b === null);
        return a === b ? 0 : sign * (a < b ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
