"use strict";

theme.start();
for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
startTradeOffs();
startLayers();
startCurves();
const comparer = document.getElementById("comparer") && new Comparer(document.getElementById("comparer"));
comparer?.start();
