// Tables sort by a column when its heading is pressed: ascending, descending, original order. Without scripts they keep the original order.
"use strict";
const value = (row, place) => row.cells[place].textContent.trim();
const size = (text) => parseFloat(text.replaceAll(",", "").replace("−", "-"));
const byName = new Intl.Collator(undefined, { numeric: true }).compare;

function compare(numbers, first, second) {
  const missing = (text) => text === "" || text === "–" || (numbers && Number.isNaN(size(text)));
  if (missing(first) || missing(second)) return { missing: missing(first) - missing(second) };
  return { order: numbers ? size(first) - size(second) : byName(first, second) };
}

function sort(table, heading) {
  const body = table.tBodies[0];
  const next = { ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")] ?? "ascending";
  for (const cell of heading.parentNode.cells) cell.removeAttribute("aria-sort");
  const rows = [...body.rows].sort((first, second) => first.dataset.place - second.dataset.place);
  if (next !== "none") {
    heading.setAttribute("aria-sort", next);
    const place = heading.cellIndex, numbers = heading.classList.contains("number");
    rows.sort((first, second) => {
      const { missing, order } = compare(numbers, value(first, place), value(second, place));
      return missing ?? (next === "ascending" ? order : -order);
    });
  }
  body.append(...rows);
}

for (const table of document.querySelectorAll(".scroll table")) {
  const rows = table.tBodies[0]?.rows ?? [];
  if (rows.length < 3 || table.tHead?.rows.length !== 1 || table.querySelector("[colspan], [rowspan]")) continue;
  for (const [place, row] of [...rows].entries()) row.dataset.place = place;
  for (const heading of table.tHead.rows[0].querySelectorAll("th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    heading.append(button);
  }
}

// the keyboard stops at a frame only where there is something to scroll
const frames = document.querySelectorAll(".scroll");
const stop = () => frames.forEach((frame) => { frame.tabIndex = frame.scrollWidth > frame.clientWidth ? 0 : -1; });
addEventListener("load", stop);
addEventListener("resize", stop);

// the contents are beside the page where there is room, and folded above it elsewhere
const contents = document.querySelector(".contents details");
const wide = matchMedia("(min-width: 1100px)");
const unfold = () => { if (contents) contents.open = wide.matches; };
wide.addEventListener("change", unfold);
unfold();

// what is folded is printed too, but for the code
const folded = () => document.querySelectorAll("footer details, details.rows");
addEventListener("beforeprint", () => folded().forEach((details) => { details.open = true; }));
