"""Annotations next to a source: COCO, YOLO, Pascal VOC, FiftyOne, and tables of image folders."""
