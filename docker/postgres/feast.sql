create database feast;
